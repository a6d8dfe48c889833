"""The evaluations that a run has made, each with the record it was made after: one counts as long as that record does."""

from __future__ import annotations

from selftrain.evals import Evaluation
from selftrain.handover import VALIDATED
from selftrain.ledger import LedgerWriter, read
from selftrain.ledger.objects import Place

BEFORE, AFTER = "before", "after"
"""names of the evaluations of the start and of what is handed over"""


class Measured:
    """Evaluations by name: made now, or recorded before the run was taken up."""

    def __init__(self, ledger: LedgerWriter) -> None:
        self._ledger = ledger
        self._made: dict[str, tuple[str, Evaluation]] = {}

    def load(self, folder: Place) -> None:
        """Know what is in the record of this run."""
        self._made.update(recorded(folder))

    def add(self, name: str, step: int, evaluation: Evaluation, **more: str) -> None:
        """Record one of this moment. more: what else is to be said of it."""
        head = self._ledger.head
        self._made[name] = (head, evaluation)
        self._ledger.record_eval({"name": name, "step": step, "head": head, "evaluation": evaluation.to_json(), **more})

    def get(self, name: str) -> Evaluation | None:
        """None where there is none that counts: records that a replay has not come to again, or has given up, do not; and what is handed over may be another
        checkpoint after each further record.
        """
        head, found = self._made.get(name, ("", None))
        return found if (head == self._ledger.head if name == AFTER else self._ledger.has(head)) else None

    def validated(self) -> dict[str, float]:
        """avg@k on the validation problems, by checkpoint (or `start`)."""
        counted = {name: one for name in self._made if name.startswith(VALIDATED) and (one := self.get(name)) is not None}
        return {name.removeprefix(VALIDATED): one.avg.value for name, one in counted.items()}


def recorded(folder: Place) -> dict[str, tuple[str, Evaluation]]:
    """The evaluations of a run by name, the last record of each, with the head of the record it was made after."""
    return {str(one["name"]): (str(one["head"]), Evaluation.from_json(one["evaluation"])) for one in read(folder).evals(rolled_back=True)}


def recorded_evaluations(folder: Place) -> dict[str, Evaluation]:
    """The evaluations alone."""
    return {name: evaluation for name, (_, evaluation) in recorded(folder).items()}
