"""`selftrain guard`"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selftrain.config import GuardSection

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from selftrain.types import Verdict

DEFAULTS = GuardSection()
WARNED, HARMED = 3, 4


@click.command("guard")
@click.argument("source", default="-", metavar="[RUN|FILE|-]")
@click.option(
    "--map", "mapped", multiple=True, metavar="FIELD=SIGNAL", help="Which field of a row is which signal, for example share=vote/share_mean_frac; repeatable."
)
@click.option("--prompts-per-step", type=click.IntRange(min=1), help="Groups that are one step, where rows of completions have no field step.")
@click.option("--window-steps", type=click.IntRange(min=1), default=DEFAULTS.window_steps, show_default=True, help="Steps over which signals are averaged.")
@click.option(
    "--baseline-steps",
    type=click.IntRange(min=1),
    default=DEFAULTS.baseline_steps,
    show_default=True,
    help="First steps, against which drift is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per step, and one at the end.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(source: str, mapped: tuple[str, ...], prompts_per_step: int | None, as_json: bool, **sizes: int) -> None:
    """Watch any run for reward hacking, without labels: judge its steps and change nothing.

    RUN is a folder of selftrain; steps that a rollback left behind are judged too. FILE (or -, standard input, the default) is JSON lines or Parquet: one
    row per step with a trainer's own signals, of which the names of TRL and verl are known and others are given with --map; or rows of completions as
    `selftrain vote` takes them, with a field step. Signals that are missing are done without.

    Exit status: 0 nothing found, 3 warnings only, 4 harm or a standstill: a run with guard.action = halt would have been halted.
    """
    first: dict[str, tuple[int, Verdict]] = {}
    num_steps = num_found = 0
    for branch, verdict in judged(source, mapped, prompts_per_step, GuardSection(action="halt", **sizes)):
        num_steps += 1
        num_found += bool(verdict.findings)
        first.setdefault(verdict.action.value, (branch, verdict))
        if verdict.findings:
            first.setdefault("found", (branch, verdict))
        for line in [json.dumps(as_row(verdict, branch))] if as_json else told(verdict, branch):
            click.echo(line)
    click.echo(json.dumps(summary(num_steps, num_found, first)) if as_json else concluded(num_steps, num_found, first))
    click.get_current_context().exit(HARMED if "halt" in first else WARNED if "warn" in first else 0)


def judged(source: str, mapped: tuple[str, ...], per_step: int | None, section: GuardSection) -> Iterator[tuple[int, Verdict]]:
    """(branch, verdict) of each step; branches are of runs of selftrain that went back."""
    from selftrain.cli.running import folder_of
    from selftrain.errors import ConfigError
    from selftrain.guard_stream import names_from, rows_in, steps_of_rows, verdicts, verdicts_of_run

    names = names_from(mapped)
    if "://" in source or Path(source).is_dir():
        if mapped or per_step is not None:
            raise ConfigError(source, "it is a run of selftrain: its signals have names and its steps are known", "Leave out --map and --prompts-per-step.")
        return verdicts_of_run(folder_of(source), section)
    steps = steps_of_rows(rows_in(source), "standard input" if source == "-" else source, names, per_step)
    return ((0, verdict) for verdict in verdicts(steps, section))


def place(verdict: Verdict, branch: int) -> str:
    return f"step {verdict.step}{f' of branch {branch}' if branch else ''}"


def as_row(verdict: Verdict, branch: int) -> dict[str, Any]:
    """A verdict as it is written, in the words of the ledger; the first branch is not named."""
    from selftrain.ledger.records import verdict_body

    return verdict_body(verdict) | ({"branch": branch} if branch else {})


def told(verdict: Verdict, branch: int) -> Iterator[str]:
    """A line for a step with findings, and one for each of them; nothing for others."""
    from selftrain.report.words import finding_words, health_words

    if verdict.findings:
        yield f"{place(verdict, branch)}: {verdict.action.value}, {health_words(verdict.health)}"
        yield from (f"  {finding_words(finding)}" for finding in verdict.findings)


def summary(num_steps: int, num_found: int, first: Mapping[str, tuple[int, Verdict]]) -> dict[str, Any]:
    """The last line as JSON. first: as for `concluded`."""
    found: dict[str, Any] = {"steps": num_steps, "with_findings": num_found}
    for name, action in (("first_warning", "warn"), ("first_harm", "halt")):
        branch, verdict = first.get(action, (0, None))
        found[name] = None if verdict is None else verdict.step
        if branch:
            found[f"{name}_branch"] = branch
    return found


def concluded(num_steps: int, num_found: int, first: Mapping[str, tuple[int, Verdict]]) -> str:
    """The last line. first: (branch, verdict) of the first finding and of the first verdict of each action, in the order in which they were judged."""
    if "found" not in first:
        return f"{num_steps} steps judged: no evidence of harm."
    found, harmed = (None if key not in first else place(first[key][1], first[key][0]) for key in ("found", "halt"))
    harm = "no harm that would have halted it" if harmed is None else f"harm, or a standstill, at {harmed}"
    return f"{num_steps} steps judged: findings in {num_found} of them, first at {found}; {harm}."
