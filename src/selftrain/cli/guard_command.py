"""`selftrain guard`"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from selftrain.config import GuardSection

if TYPE_CHECKING:
    from selftrain.cli.judging import Found
    from selftrain.trainer_log import Seen
    from selftrain.types import Verdict

DEFAULTS = GuardSection()


@click.command("guard")
@click.argument("source", default="-", metavar="[RUN|FILE|-]")
@click.option(
    "--map", "mapped", multiple=True, metavar="FIELD=SIGNAL", help="Which field of a row is which signal, for example share=vote/share_mean_frac; repeatable."
)
@click.option("--prompts-per-step", type=click.IntRange(min=1), help="Groups that are one step, where rows of completions have no field step.")
@click.option(
    "--window-steps",
    type=click.IntRange(min=1),
    show_default=f"{DEFAULTS.window_steps}, of RUN its own",
    help="Steps over which signals are averaged.",
)
@click.option(
    "--baseline-steps",
    type=click.IntRange(min=1),
    show_default=f"{DEFAULTS.baseline_steps}, of RUN its own",
    help="First steps, against which drift is measured.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON line per step, and one at the end.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(source: str, mapped: tuple[str, ...], prompts_per_step: int | None, as_json: bool, **sizes: int | None) -> None:
    """Watch any run for reward hacking, without labels: judge its steps and change nothing.

    RUN is a folder of selftrain; steps that a rollback left behind are judged too. FILE (or -, standard input, the default) is JSON lines, Parquet, CSV,
    the trainer_state.json of a Hugging Face trainer, or what TRL, verl or TTRL wrote to the terminal: one row per step with a trainer's own signals, of
    which the names of these are known and others are given with --map; or rows of completions as `selftrain vote` takes them, with a field step. Signals
    that are missing are done without, and stderr says which rules had theirs. Ctrl-C ends it with what was found so far.

    Exit status: 0 nothing found, 2 a mistake in what was given, or no step could be judged, 3 warnings only, 4 harm or a standstill: a run with
    guard.action = halt would have been halted. What was found before an error counts.
    """
    from selftrain.cli.judging import Found, as_row, told
    from selftrain.errors import SelftrainError
    from selftrain.trainer_log import Seen

    found, seen, ended = Found(), Seen(), None
    section = section_of(source, sizes)
    try:
        for branch, verdict in judged(source, mapped, prompts_per_step, section, seen):
            found.add(branch, verdict)
            for line in [json.dumps(as_row(verdict, branch))] if as_json else told(verdict, branch):
                click.echo(line)
    except (SelftrainError, KeyboardInterrupt) as error:
        if not found.num_steps:
            raise
        ended = error
    conclude(source, found, seen, section, as_json, ended)


def section_of(source: str, sizes: dict[str, int | None]) -> GuardSection:
    """The window and the first steps: as they are asked for, else those of the run, else the default ones."""
    own = {}
    if is_run(source):
        from selftrain.cli.running import folder_of
        from selftrain.ledger import read

        recorded = read(folder_of(source)).header["config"].get("guard", {})
        own = {name: recorded[name] for name in sizes if name in recorded}
    return GuardSection(action="halt", **{**own, **{name: size for name, size in sizes.items() if size is not None}})


def is_run(source: str) -> bool:
    return "://" in source or Path(source).is_dir()


def judged(source: str, mapped: tuple[str, ...], per_step: int | None, section: GuardSection, seen: Seen) -> Iterator[tuple[int, Verdict]]:
    """(branch, verdict) of each step; branches are of runs of selftrain that went back. Raises SelftrainError."""
    from selftrain.cli.running import folder_of
    from selftrain.errors import ConfigError
    from selftrain.guard_stream import rows_in, steps_of_rows, verdicts, verdicts_of_run
    from selftrain.trainer_log import names_from

    names = names_from(mapped)
    if is_run(source):
        if mapped or per_step is not None:
            raise ConfigError(source, "it is a run of selftrain: its signals have names and its steps are known", "Leave out --map and --prompts-per-step.")
        for branch, verdict in verdicts_of_run(folder_of(source), section):
            seen.judged += verdict.health is not None
            yield branch, verdict
        return
    steps = steps_of_rows(rows_in(source, names, seen), named(source), names, per_step, seen)
    if seen.kind == "groups" and mapped:
        raise ConfigError(f"--map {mapped[0]}", "the rows have completions, whose signals are measured here", "Leave out --map.")
    if seen.kind == "signals" and per_step is not None:
        raise ConfigError(f"--prompts-per-step {per_step}", "the rows have signals, each of a step of its own", "Leave out --prompts-per-step.")
    yield from ((0, verdict) for verdict in verdicts(steps, section, seen=seen))
    seen.nowhere = [f"--map {name}={signal}" for name, signal in names.items() if name not in seen.fields]


def named(source: str) -> str:
    return "standard input" if source == "-" else source


def conclude(source: str, found: Found, seen: Seen, section: GuardSection, as_json: bool, ended: BaseException | None) -> NoReturn:
    """Say what was found, also where an error or Ctrl-C was the end of it, and leave with the status. Raises the error where nothing was found before it."""
    from selftrain.cli.app import INTERRUPTED, tell
    from selftrain.cli.judging import concluded, summary, unjudged
    from selftrain.errors import PromptError, SelftrainError

    notes, (why, do) = list(seen.notes()), unjudged(found, seen, section)
    failed = ended if isinstance(ended, SelftrainError) else None
    if as_json:
        click.echo(json.dumps(summary(found, 0 if why else seen.judged, notes, f"{failed.given}: {failed.why}" if failed else why)))
    elif not why:
        click.echo(concluded(found))
    for note in notes:
        click.echo(f"note: {note}", err=True)
    context = click.get_current_context()
    if failed is not None and not found.status:
        raise failed
    if failed is not None:
        tell(failed.given, failed.why, failed.do, failed.exit_status, debug=False)
    elif why and isinstance(ended, KeyboardInterrupt):
        click.echo(f"{named(source)}: {why}", err=True)
        context.exit(INTERRUPTED)
    elif why:
        raise PromptError(named(source), why, do)
    context.exit(found.status)
