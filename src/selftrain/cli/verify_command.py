"""`selftrain verify`"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from selftrain.ledger import VerifyReport

MAX_SHOWN = 20


@click.command("verify")
@click.argument("run", type=click.Path())
@click.option(
    "--head", metavar="HASH", help="The ledger head that was kept elsewhere, for example from the end of `selftrain train`: it must be in the record."
)
@click.option("--replay", is_flag=True, help="Recompute keys, votes, labels, rewards, advantages, admission and verdicts from the completions and compare.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(run: str, head: str | None, replay: bool) -> None:
    """Prove that nothing in a run's record was changed, dropped, reordered or added.

    RUN is its folder. Prints `intact`, or `unfinished` for a run without an end, and exits with 0; a damaged record is named and exits with 1. Without
    --head, somebody who rewrites the whole record from some point on is not found out.
    """
    from selftrain.cli.running import folder_of
    from selftrain.ledger import Status, verify

    folder = folder_of(run)
    found = verify(folder, head)
    show(found)
    if found.status is Status.DAMAGED:
        raise damaged(folder, found)
    if replay:
        replayed(folder)


def show(found: VerifyReport) -> None:
    click.echo(f"{found.status.value}: {found.num_records} records, {found.num_segments} segments, head {found.head}")
    for note in found.notes:
        click.echo(f"note: {note}")
    for fault in found.faults[:MAX_SHOWN]:
        where = fault.where if fault.record is None else f"record {fault.record}, {fault.where}"
        click.echo(f"fault: {where}: {fault.words}")
    if len(found.faults) > MAX_SHOWN:
        click.echo(f"and {len(found.faults) - MAX_SHOWN} more")


def damaged(folder: Path, found: VerifyReport) -> Exception:
    from selftrain.errors import LedgerError

    first = found.faults[0]
    where = first.where if first.record is None else f"record {first.record} in {first.where}"
    return LedgerError(f"run {folder}", f"its record is damaged, first at {where}: {first.words}", "Go back to a copy of the run folder.")


def replayed(folder: Path) -> None:
    from selftrain.errors import LedgerError
    from selftrain.ledger import read
    from selftrain.replay import replay
    from selftrain.run import read_config

    result = replay(read(folder), read_config(folder))
    groups = result.groups
    click.echo(f"replayed: {groups.num_groups} groups, {groups.num_mismatches} differences; {result.num_verdicts} verdicts, {len(result.verdicts)} differ")
    for one in groups.mismatches[:MAX_SHOWN]:
        click.echo(f"difference: step {one.step}, group {one.group_index}, {one.name}: recorded {one.recorded}, recomputed {one.recomputed}")
    for step in result.verdicts[:MAX_SHOWN]:
        click.echo(f"difference: step {step}, verdict")
    if not result.agrees:
        why = "what is recorded does not follow from the recorded completions"
        raise LedgerError(
            f"run {folder}", why, "Replay with the version of selftrain that made the run (run.json names it); if it differs there too, do not trust the run."
        )
