"""What a run tells while it goes on, beside the reports of its steps."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.evals import Evaluation
from selftrain.ledger import BranchRecord, RequestRecord
from selftrain.ledger.objects import Place


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Held-out problems were evaluated: `name` is before, a checkpoint's name or after; `step` steps had been done."""

    name: str
    step: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Taken:
    """A request of somebody outside was recorded and is obeyed now, unless `request.refused` says why not."""

    request: RequestRecord


@dataclass(frozen=True, slots=True)
class RolledBack:
    """The guard has rolled the run back; the next step report is one of the new branch."""

    record: BranchRecord


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. reason: done, halted or interrupted. handed_over: name of the checkpoint (or `start`), path: its folder or the model's name.

    before and after are None without held-out problems; they never influenced the choice.
    """

    folder: Place
    reason: str
    steps: int
    head: str
    handed_over: str
    path: str
    before: Evaluation | None
    after: Evaluation | None
