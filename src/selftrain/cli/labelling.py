"""Write a file of stored labels with a progress bar, then say what is in it."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from statistics import fmean
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from selftrain.cli.app import INTERRUPTED
from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.labels import Bounds
from selftrain.labels.rules import outcome_of
from selftrain.ledger.storage import advice
from selftrain.stored_file import StoredLabels, read_stored
from selftrain.stored_labels import label, prepare
from selftrain.types import Outcome


def write_labels(config: RunConfig, out: str | None, log: str | None) -> int:
    """Returns the exit status: 130 after Ctrl-C, which the same command takes up again."""
    name = out or config.stored_file
    if name is None:
        raise ConfigError("--out", "no file is named for the labels", "Give --out labels.jsonl, or stored.file in the config.")
    work = prepare(config, Path(name))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shows_bar = log == "rich" or (log is None and sys.stderr.isatty())
    kept = 0
    try:
        do = "Let there be room in a folder that you may write to, then give the command again: it goes on from what is done."
        with advice(do), Progress(*columns, console=Console(stderr=True), transient=True, disable=not shows_bar) as progress:
            bar = progress.add_task(f"labelling by {config.policy.model}", total=len(work.prompts))
            for state in label(work):
                kept = state.num_kept
                progress.update(bar, completed=state.num_done)
    except KeyboardInterrupt:
        click.echo(f"Stopped; what is done is in {name}. The same command goes on from there.", err=True)
        return INTERRUPTED
    found = summary(read_stored(Path(name)), name, kept)
    if log == "json":
        click.echo(json.dumps(found))
    else:
        for line in words(found):
            click.echo(line)
    return 0


def summary(stored: StoredLabels, name: str, kept: int) -> dict[str, Any]:
    """What is in a file, fractions in [0, 1]. easiest_third_share_frac: the share of the winner that a third of the prompts reaches; more reach
    it where shares are equal, and the next share is reached by fewer.
    """
    header, votes = stored.header, list(stored.votes.values())
    bounds = Bounds(header["labels"]["min_read_frac"], header["labels"]["min_share_frac"])
    outcomes = Counter(outcome_of(vote, bounds).value for vote in votes)
    shares = sorted((vote.share_frac for vote in votes), reverse=True)
    return {
        "file": name,
        "sha256": stored.sha256,
        "model": header["model"],
        "model_hash": header["model_hash"],
        "origin": header["prompts"]["origin"],
        "num_prompts": len(votes),
        "num_kept": kept,
        "num_votes": header["sampling"]["num_votes"],
        "outcome_fracs": {outcome.value: outcomes[outcome.value] / len(votes) for outcome in Outcome if outcomes[outcome.value]},
        "share_mean_frac": fmean(shares),
        "easiest_third_share_frac": (third := shares[max(0, len(shares) // 3 - 1)]),
        "num_at_least_third": sum(share >= third for share in shares),
        "next_share_frac": next((share for share in reversed(shares) if share > third), None),
        "num_above_third": sum(share > third for share in shares),
    }


def words(found: dict[str, Any]) -> list[str]:
    earlier = f", {found['num_kept']:,} of them by an earlier call" if found["num_kept"] else ""
    outcomes = ", ".join(f"{outcome} {100 * frac:.1f} %" for outcome, frac in found["outcome_fracs"].items())
    return [
        f"{found['num_prompts']:,} prompts of {found['origin']}, {found['num_votes']} votes each by {found['model']}{earlier}",
        f"outcomes: {outcomes}; mean vote share of the winner {100 * found['share_mean_frac']:.1f} %",
        easiest(found),
        f"file: {found['file']} (sha256 {found['sha256']})",
        f"next: selftrain train, with the same options, and --labels.source stored --stored.file {found['file']}",
    ]


def easiest(found: dict[str, Any]) -> str:
    """Which least share leaves about a third, and how many prompts reach it: N votes know few shares, so many prompts have the same."""
    third, above, total = found["easiest_third_share_frac"], found["next_share_frac"], found["num_prompts"]
    more = f"; {bound(above)} on {found['num_above_third']:,}" if above is not None and found["num_at_least_third"] > total / 3 + 1 else ""
    return f"the easiest third: --labels.min-share-frac {bound(third)} trains on the {found['num_at_least_third']:,} of {total:,} that reach it{more}"


def bound(share: float) -> str:
    """Rounded down, so that the share itself reaches it."""
    return f"{int(1000 * share) / 1000:g}"
