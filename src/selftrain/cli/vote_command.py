"""`selftrain vote`"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from selftrain.cli.options import ConfigCommand, config_options, overrides
from selftrain.config import LabelsSection
from selftrain.errors import ConfigError, PromptError

if TYPE_CHECKING:
    from selftrain.judge_stream import Judge
    from selftrain.labels import Bounds
    from selftrain.vote_stream import GroupVote, Overview

NUM_LISTED = 10
JUDGE_OPTIONS = (
    "judge.",
    "policy.device",
    "policy.dtype",
    "policy.num_threads",
    "policy.prompt_format",
    "policy.plain_template",
    "policy.system_prompt",
    "policy.chat_template_args",
    "rollout.cache_mib",
)
"""options of the config that also say how a judge is asked"""
DEFAULTS = LabelsSection()
NOTHING = 'Write rows such as {"prompt": "1+1", "completion": "#### 2"}.'


@click.command("vote", cls=ConfigCommand)
@click.argument("file", default="-", metavar="[FILE|-]")
@click.option(
    "--min-read-frac",
    type=click.FloatRange(0, 1),
    default=DEFAULTS.min_read_frac,
    show_default=True,
    help="Quorum: least share of completions with a readable answer for a decided vote.",
)
@click.option(
    "--min-share-frac",
    type=click.FloatRange(0, 1),
    default=DEFAULTS.min_share_frac,
    show_default=True,
    help="Least share of the winner among all votes for a decided vote.",
)
@click.option(
    "--clustering",
    default=DEFAULTS.clustering,
    show_default=True,
    help="Which answers are one. exact: canonical keys; for free-form answers text, overlap (nearly the same words), judge (--judge-model is asked) or "
    "package.module:function.",
)
@click.option(
    "--judge-model",
    metavar="MODEL",
    help="For --clustering judge: the model that is asked, as in --policy.model; how, say the options below.",
)
@click.option(
    "--explain", metavar="PROMPT", help="Instead of votes, show one prompt: the answer and key of each completion, and why two ways of writing are one."
)
@click.option("--table", type=click.Path(dir_okay=False), help="Write the table of closest calls, ties and unread answers to this file instead of stderr.")
@click.option("--quiet", is_flag=True, help="No table.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options(*JUDGE_OPTIONS)
def command(file: str, clustering: str, explain: str | None, table: str | None, quiet: bool, **given: Any) -> None:
    """Completions in, consensus answers out: one JSON line per prompt, in flat memory.

    FILE is JSON lines or Parquet, - (the default) is JSON lines on standard input. A row has a prompt (prompt, prompt_id, id, question or input) and a
    completion (completion, text, response or output), rows of one prompt following each other, or a list of completions (completions, ...). Answers are
    compared by their canonical keys, as in training. The outcome of a vote is decided, tie, no_answer, below_quorum or below_min_share.
    """
    from selftrain.labels import Bounds
    from selftrain.vote_stream import Overview

    bounds = Bounds(given.pop("min_read_frac"), given.pop("min_share_frac"))
    check_table(table)
    judge = judge_of(file, clustering, given.pop("judge_model"), overrides(given))
    votes = votes_in(file, clustering, judge)
    if explain is not None:
        click.echo(encodable("\n".join(explained(explain, votes, clustering))))
        return
    overview = Overview(limit=NUM_LISTED)
    in_ascii = not sys.stdout.encoding.lower().startswith("utf")  # what another encoding lacks would be escaped as Python does it, which is no JSON
    for group in votes:
        overview.add(group)
        print(encodable(json.dumps(as_json(group, bounds), ensure_ascii=in_ascii)), flush=file == "-")
    if not overview.num_groups:
        raise PromptError("standard input" if file == "-" else file, "there is no completion in it", NOTHING)
    lines = encodable("\n".join([*summary(overview), *([] if judge is None else [judged(judge)])]))
    if table is not None:
        Path(table).write_text(lines + "\n", "utf-8")
    elif not quiet:
        click.echo(lines, err=True)


def judge_of(file: str, clustering: str, model: str | None, options: dict[str, Any]) -> Judge | None:
    """The model that is asked; None unless the clustering asks one. Raises ConfigError for options that do not fit together, ModelError."""
    if clustering != "judge":
        unused = ["--judge-model"] * (model is not None) + [f"--{name.replace('_', '-')}" for name in options]
        if unused:
            why = f"it is for a model that judges, and --clustering is {clustering}"
            raise ConfigError(", ".join(unused), why, "Add --clustering judge, or leave it out.")
        return None
    if model is None:
        raise ConfigError("--clustering judge", "no model is named that could judge", "Name one with --judge-model, for example a Hugging Face folder.")
    from selftrain.compose import load_policy
    from selftrain.config_load import load_config
    from selftrain.judge_stream import Judge
    from selftrain.policies.base import SamplingParams

    config = load_config((), {"prompts.file": file, **options, "policy.model": model})
    return Judge(load_policy(config), SamplingParams(config.judge.max_new_tokens, config.judge.temperature), config.judge.max_pairs)


def votes_in(file: str, clustering: str, judge: Judge | None) -> Iterator[GroupVote]:
    from selftrain.answers.freeform import reader
    from selftrain.vote_stream import groups_of, votes_of

    return votes_of(file, reader(clustering)) if judge is None else judge.votes(groups_of(file))


def judged(judge: Judge) -> str:
    """What became of the pairs, for a person."""
    return (
        f"judge: {counted(judge.num_pairs, 'pair')} of different answers, {judge.num_beyond} of them beyond --judge.max-pairs and not judged; "
        f"{counted(judge.num_unread, 'reply', 'replies')} without yes or no, {counted(judge.num_too_long, 'question')} too long for the model"
    )


def counted(number: int, one: str, many: str | None = None) -> str:
    """1 prompt, 2 prompts"""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


def check_table(table: str | None) -> None:
    """Raises ConfigError when the file could not be written: before the work."""
    if table is None:
        return
    folder = Path(table).parent
    if not folder.is_dir():
        raise ConfigError(f"--table {table}", f"there is no folder {folder}", "Make the folder, or choose another file.")
    if not os.access(table if Path(table).exists() else folder, os.W_OK):
        raise ConfigError(f"--table {table}", "it may not be written", "Choose another file.")


def encodable(text: str) -> str:
    """The text with half characters (lone surrogates, which no encoding has) as JSON escapes them: \\ud800."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def as_json(group: GroupVote, bounds: Bounds) -> dict[str, Any]:
    """A vote as it is written. answer: the winner as it was most often written; null unless decided."""
    from selftrain.labels.rules import outcome_of
    from selftrain.types import Outcome

    vote = group.vote
    outcome = outcome_of(vote, bounds)
    key = vote.winners[0] if outcome is Outcome.DECIDED else None
    forms = group.surface_forms()[key] if key is not None else {}
    return {
        "prompt": group.prompt,
        "outcome": outcome.value,
        "answer": max(forms, key=lambda form: forms[form], default=None),
        "key": key,
        "share_frac": vote.share_frac,
        "margin_frac": vote.margin_frac,
        "num_votes": vote.num_votes,
        "num_read": vote.num_read,
        "counts": [list(one) for one in vote.counts],
    }


def summary(overview: Overview) -> Iterator[str]:
    yield (
        f"{counted(overview.num_groups, 'prompt')}, {counted(overview.num_completions, 'completion')}: "
        f"{counted(overview.num_ties, 'tie')}, {overview.num_empty} without any answer, {counted(overview.num_unread, 'completion')} unread"
    )
    if overview.num_again:
        these = f"{overview.num_again} of these {'is' if overview.num_again == 1 else 'are'}"
        yield f"{these} of a prompt that had a vote before: its completions lie in rows apart, or in lists of their own."
        yield "Rows of one completion each, sorted by prompt, are one vote."
    for title, found in (("closest calls", overview.closest), ("ties", overview.ties), ("least read", overview.least_read)):
        if found:
            yield f"{title}:"
        for group in found:
            votes = ", ".join(f"{key} x {count}" for key, count in group.vote.counts[:4])
            yield f"  {' '.join(group.prompt.split())[:60]}  {votes or 'nothing read'}  ({group.vote.num_read} of {group.vote.num_votes} read)"


def explained(prompt: str, votes: Iterator[GroupVote], clustering: str) -> Iterator[str]:
    """The completions of one prompt with what was read in each and why it counts as its cluster's answer, then the clusters."""
    from selftrain.vote_stream import explain

    group = next((one for one in votes if one.prompt == prompt), None)
    if group is None:
        raise PromptError(f"--explain {prompt}", "there is no such prompt in the input", "Give the prompt or its id as it stands in the rows.")
    for one in explain(group, clustering):
        read = "no answer" if one.key is None else f"answer {one.text!r}, key {one.key!r} ({one.kind})"
        yield f"completion {one.index}: {read}: {one.why}"
    for key, forms in group.surface_forms().items():
        written = ", ".join(f"{form!r} x {count}" for form, count in forms.items())
        yield f"key {key!r}: {sum(forms.values())} of {group.vote.num_votes} votes, written {written}"
