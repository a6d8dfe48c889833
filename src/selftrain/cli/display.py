"""What a display of a run must do, and the one that `--log` asks for."""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager
from typing import Protocol

from selftrain.events import Taken
from selftrain.report import Report, RunRecord
from selftrain.run import Evaluated, Outcome, RolledBack, Run
from selftrain.train import StepReport


class Display(AbstractContextManager["Display"], Protocol):
    """Told of everything in the order in which it happens."""

    def begin(self, run: Run, resumed: bool) -> None: ...

    def evaluated(self, event: Evaluated) -> None: ...

    def step(self, report: StepReport) -> None: ...

    def taken(self, event: Taken) -> None: ...

    def rolled_back(self, event: RolledBack) -> None: ...

    def note(self, words: str) -> None: ...

    def end(self, outcome: Outcome, record: RunRecord, report: Report | None) -> None: ...


def display_of(log: str | None) -> Display:
    chosen = log or ("rich" if sys.stdout.isatty() else "plain")
    if chosen == "json":
        from selftrain.cli.json_lines import JsonLines

        return JsonLines()
    if chosen == "plain":
        from selftrain.cli.plain import Plain

        return Plain()
    from selftrain.cli.live import Live

    return Live()
