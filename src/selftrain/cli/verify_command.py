"""`selftrain verify`"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from selftrain.ledger import VerifyReport
    from selftrain.ledger.objects import Place

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
    from selftrain.cli.running import check_outside_code, folder_of
    from selftrain.ledger import Status, verify

    folder = folder_of(run)
    check_head(head)
    found = verify(folder, head)
    show(found)
    if found.status is Status.DAMAGED:
        raise damaged(folder, found, head)
    if replay:
        check_outside_code(folder, goes_on=False)
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


def check_head(head: str | None) -> None:
    from selftrain.errors import ConfigError

    if head is not None and not re.fullmatch("[0-9a-f]{64}", head):
        why = "a ledger head is 64 hexadecimal digits (0-9, a-f)"
        raise ConfigError(f"--head {head}", why, "Give the whole head, as it stands at the end of `selftrain train`.")


def damaged(folder: Place, found: VerifyReport, head: str | None) -> Exception:
    from selftrain.errors import LedgerError

    first = found.faults[0]
    if head is not None and len(found.faults) == 1 and first.record is None and head in first.words:
        why = "that head is not in this record" if "not in it" in first.words else "the part of the record with that head was given up at a fork"
        do = "Check that the head is this run's. If it is, the record was written anew after the head was kept: go back to a copy of the run folder."
        return LedgerError(f"run {folder}, --head {head}", why, do)
    where = first.where if first.record is None else f"record {first.record} in {first.where}"
    return LedgerError(f"run {folder}", f"its record is damaged, first at {where}: {first.words}", "Go back to a copy of the run folder.")


def replayed(folder: Place) -> None:
    from selftrain.errors import LedgerError
    from selftrain.ledger import read
    from selftrain.replay import changed_functions, replay
    from selftrain.run import read_config

    ledger, config = read(folder), read_config(folder)
    changed = changed_functions(ledger, config)
    for name in changed:
        click.echo(f"note: {name}: its module has another source than in the run")
    result = replay(ledger, config)
    groups = result.groups
    click.echo(
        f"replayed: {groups.num_groups} groups, {groups.num_mismatches} differences; {result.num_verdicts} verdicts, {len(result.verdicts)} differ; "
        f"{result.num_probes} {'probe' if result.num_probes == 1 else 'probes'}, {len(result.probes)} differ"
    )
    for one in groups.mismatches[:MAX_SHOWN]:
        click.echo(f"difference: step {one.step}, group {one.group_index}, {one.name}: recorded {one.recorded}, recomputed {one.recomputed}")
    for step in result.verdicts[:MAX_SHOWN]:
        click.echo(f"difference: step {step}, verdict")
    for step in result.probes[:MAX_SHOWN]:
        click.echo(f"difference: step {step}, probe")
    if not result.agrees:
        why = "what is recorded does not follow from the recorded completions"
        do = "Replay with the version of selftrain that made the run (run.json names it); if it differs there too, do not trust the run."
        if changed:
            why += f" by another function than the one that decided in the run ({', '.join(changed)})"
            do = "Restore the module as it was in the run, and replay again: the differences may come from it."
        raise LedgerError(f"run {folder}", why, do)
