"""Do a run under a display: the part that `train` and `resume` share."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from importlib.util import find_spec
from typing import NamedTuple

import click

from selftrain import report
from selftrain.cli.app import INTERRUPTED, lost_output
from selftrain.cli.display import Display
from selftrain.cli.interrupts import stopping
from selftrain.compose import VERIFIER, outside_functions
from selftrain.control import visible
from selftrain.errors import ConfigError, FailureError, SelftrainError, StorageError
from selftrain.events import Taken
from selftrain.ledger import read
from selftrain.ledger.objects import Place, place
from selftrain.run import Evaluated, Outcome, RolledBack, Run, read_config
from selftrain.run_folder import named
from selftrain.train import StepReport


class Ended(NamedTuple):
    """finished: whether the run has its end. signalled: 128 and the signal that came first, 0 where none did."""

    finished: bool
    signalled: int

    @property
    def status(self) -> int:
        """Of `train` and `resume`: 0 for a run with an end, whatever came meanwhile."""
        return 0 if self.finished else self.signalled or INTERRUPTED


def do(run: Run, display: Display, resumed: bool) -> Ended:
    """As `done`. Raises StorageError, which says how to go on, when nothing more can be told since stdout cannot be written."""
    try:
        return done(run, display, resumed)
    except BrokenPipeError:
        raise
    except OSError as error:
        why, folder = lost_output(error), shlex.quote(str(run.folder))
        if why is None:
            raise
        ended = f"The run has ended: `selftrain report {folder}` writes its report."
        how = ended if read(run.folder).finished else f"The record so far is intact. Send the output elsewhere and go on with: selftrain resume {folder}"
        raise StorageError("the output", f"it cannot be written ({why})", how) from error


def done(run: Run, display: Display, resumed: bool) -> Ended:
    """Run to its end, write the report, tell how it ended."""
    with display, stopping(run, display.note) as came:
        shown(display.begin, run, resumed)
        outcome = watched(run, display, came)
        written, record = None, report.read_record(outcome.folder)
        if outcome.reason != "interrupted" or record.steps:
            written = report.write_report(outcome.folder)
        shown(display.end, outcome, record, written)
    return Ended(outcome.reason != "interrupted", 128 + came[0] if came else 0)


def shown(tell: Callable[..., None], *told: object) -> None:
    """Tell the display something; what it cannot show is said on stderr and ends no run. A closed pipe or a full disk does, as ever."""
    try:
        tell(*told)
    except (OSError, SelftrainError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever a display may raise: the run is worth more than what is shown of it
        click.echo(f"note: something could not be shown ({type(error).__name__}: {visible(str(error))}); it is in the record", err=True)


def watched(run: Run, display: Display, came: list[int]) -> Outcome:
    try:
        for event in run.events():
            if isinstance(event, Outcome):
                return event
            if isinstance(event, Evaluated):
                shown(display.evaluated, event)
            elif isinstance(event, StepReport):
                shown(display.step, event)
            elif isinstance(event, Taken):
                shown(display.taken, event)
            elif isinstance(event, RolledBack):
                shown(display.rolled_back, event)
    except KeyboardInterrupt:
        if len(came) > 1:
            display.note(f"Stopped at once. Go on with: selftrain resume {shlex.quote(str(run.folder))}; it repeats the steps since the last checkpoint.")
        raise
    raise FailureError(f"run {run.folder}", "it ended without an outcome", "Take it up again with `selftrain resume`, and report this.")


def folder_of(text: str) -> Place:
    """The folder of a run, from a path or a URL, by its name: what is said of it and written beside it is called by that."""
    return named(place(text))


def check_outside_code(folder: Place, goes_on: bool) -> None:
    """Raises ConfigError where a module that decided in the run cannot be found from here: a file of the user's is found from the folder it lies in.

    goes_on: whether the run is taken up; a verifier is called then only, what it said before is in the record.
    """
    record = read(folder)
    for option, name in outside_functions(read_config(folder)):
        module = name.partition(":")[0].partition(".")[0]
        is_called = goes_on or option != VERIFIER
        if is_called and module and find_spec(module) is None:
            raise ConfigError(
                f"{option} = {name}", f"there is no module {module} here", f"Call selftrain where the run was started: cd {record.environment['cwd']}"
            )
