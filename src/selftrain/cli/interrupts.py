"""Ctrl-C and SIGTERM while a run is written: the first ends it after the step in flight, the second stops at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from selftrain.run import Run


@contextmanager
def stopping(run: Run, note: Callable[[str], None]) -> Iterator[list[int]]:
    """While it is open, signals stop the run. Gives the list of the signals that came; a second one raises KeyboardInterrupt."""
    came: list[int] = []

    def on_signal(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt
        run.stop()
        note("Stopping after the step in flight, with a checkpoint. Once more stops at once; a resumed run then repeats the steps since the last checkpoint.")

    old = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield came
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
