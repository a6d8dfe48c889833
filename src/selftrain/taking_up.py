"""Requests from outside, taken up between two steps: recorded, then obeyed. What can be asked for is in control.py."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from selftrain import control
from selftrain.errors import CheckpointError
from selftrain.events import Taken
from selftrain.handover import START
from selftrain.ledger import RequestRecord

if TYPE_CHECKING:
    from selftrain.run import Run

POLL_S = 0.2
"""how often a paused run looks for the next request"""


def take_up_requests(run: Run) -> Iterator[Taken]:
    """Record and obey what was asked for; while the run is paused wait for more.

    What a run that was killed had recorded is obeyed again at the same place, but for a stop: that was done, or nobody would be going on.
    """
    ledger, paused = run.ledger, False
    while not run.stopping:
        recorded = ledger.recorded_request
        asked = None if recorded or ledger.is_replaying else control.waiting(run.folder, ledger.requests_taken)
        request = recorded or (judged(run, asked, paused) if asked else None)
        if request is None:
            if not paused or ledger.is_replaying:
                return
            time.sleep(POLL_S)
            continue
        ledger.append_request(request)
        yield Taken(request)
        if request.refused:
            continue
        paused = {control.PAUSE: True, control.RESUME: False}.get(request.action, paused)
        if request.action == control.STOP and not recorded:
            run.stop()
        if request.action == control.OVERRULE:
            run.guard.overrule()
            run.known.overruled.add((ledger.branch, run.steps_done))
        if request.action == control.ROLL_BACK:
            run.roll_back(str(request.checkpoint), request.reason, request.who)


def judged(run: Run, asked: control.Request, paused: bool) -> RequestRecord:
    """The record of a request, with the reason where it cannot be obeyed."""
    refused = ""
    if asked.action == control.UNREADABLE:
        refused = asked.reason
    elif asked.action in (control.PAUSE, control.RESUME) and paused == (asked.action == control.PAUSE):
        refused = "the run is paused already" if paused else "the run is not paused"
    elif asked.action == control.OVERRULE and run.config.guard.action == "off":
        refused = "the guard is off: there is nothing to overrule"
    elif asked.action == control.ROLL_BACK and asked.checkpoint != START:
        try:
            run.checkpoint(str(asked.checkpoint))
        except CheckpointError as error:
            refused = error.why
    return RequestRecord(asked.number, asked.action, asked.checkpoint, asked.reason, asked.who, run.steps_done, refused)
