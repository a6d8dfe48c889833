"""What a report is made of: the run folder, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain import kept_checkpoints
from selftrain.config import RunConfig
from selftrain.control import overrulings
from selftrain.evals import Evaluation
from selftrain.guard import Doubts
from selftrain.handover import START, VALIDATED, Schedule, healthiest
from selftrain.ledger import Ledger, RequestRecord, read
from selftrain.ledger.objects import Place
from selftrain.remedies import changes_signals
from selftrain.run import read_config
from selftrain.types import StepMetrics, Verdict


@dataclass(frozen=True, slots=True)
class NamedEvaluation:
    """An evaluation in the run: `name` is before, step-N or after; `step` steps had been done."""

    name: str
    step: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run as its folder tells it, finished or not. handed_over: the checkpoint a user should take, or `start`; end_reason: None while it has no end.

    validated: on the validation problems, named by their checkpoints. overruled: the requests that overruled the guard, of the steps that count, in order.
    doubts: what its verdicts hold against checkpoints, since a person overruled the guard last.
    """

    folder: Place
    config: RunConfig
    header: Mapping[str, Any]
    environment: Mapping[str, Any]
    steps: tuple[StepMetrics, ...]
    verdicts: tuple[Verdict, ...]
    evaluations: tuple[NamedEvaluation, ...]
    validated: tuple[NamedEvaluation, ...]
    timings: tuple[Mapping[str, Any], ...]
    num_forks: int
    end_reason: str | None
    overruled: tuple[RequestRecord, ...]
    doubts: Doubts
    handed_over: str
    ledger: Ledger

    @property
    def name(self) -> str:
        return self.folder.resolve().name if isinstance(self.folder, Path) else self.folder.name

    @property
    def label_free(self) -> bool:
        return bool(self.header["label_free"])

    def evaluation(self, name: str) -> Evaluation | None:
        """The evaluation of that name; `after` is `before` where a finished run hands over its start."""
        found = next((one.evaluation for one in self.evaluations if one.name == name), None)
        if found is None and name == "after" and self.end_reason is not None and self.handed_over == START:
            return self.evaluation("before")
        return found

    @property
    def healthiest(self) -> str:
        """What the guard would have handed over, without labels, of all checkpoints that were made."""
        there = {one.step: one.name for one in self.ledger.checkpoints()}
        return healthiest(there, max(there, default=0), self.doubts, Schedule(1, 1, self.config.guard.window_steps))

    @property
    def handed_over_path(self) -> str:
        """Folder of the checkpoint that is handed over, or the name of the model at the start."""
        return self.config.policy.model if self.handed_over == START else str(self.folder / "checkpoints" / self.handed_over)

    @property
    def overruled_until(self) -> int:
        """The step before which findings are overruled; 0 where nobody overruled the guard."""
        return max((one.step for one in self.overruled), default=0)

    @property
    def measured_since(self) -> int:
        """The first step that the guard measures others against: it measures anew where it is overruled, and after remedies that change what votes are like."""
        lineage = self.ledger.lineage
        return max(self.overruled_until, *(one.step for one in self.ledger.branches if one.branch in lineage and changes_signals(self.ledger.branches, one)), 0)

    @property
    def harm_since_step(self) -> int | None:
        """Since which step harmful findings have lasted without a break until the last step; None without any."""
        return self.doubts.harm_since_step


def read_record(folder: Place) -> RunRecord:
    """Raises RunFolderError when the folder holds no run, LedgerError when its record is damaged."""
    ledger = read(folder)
    config = read_config(folder)
    verdicts, steps = tuple(ledger.verdicts()), tuple(step.metrics for step in ledger.steps())
    overruled = overruled_in(ledger)
    doubts = doubts_of(config, overruled, verdicts, steps)
    evaluations = [named(one) for one in ledger.evals()]
    return RunRecord(
        folder=folder,
        config=config,
        header=ledger.header,
        environment=ledger.environment,
        steps=steps,
        verdicts=verdicts,
        evaluations=tuple(one for one in evaluations if not one.name.startswith(VALIDATED)),
        validated=tuple(named(one, VALIDATED) for one in ledger.evals(rolled_back=True) if one["name"].startswith(VALIDATED)),
        timings=tuple(ledger.timings()),
        num_forks=len(list(ledger.forks())),
        end_reason=ledger.end_reason,
        overruled=overruled,
        doubts=doubts,
        handed_over=handed_over(ledger, config, doubts),
        ledger=ledger,
    )


def named(record: Mapping[str, Any], prefix: str = "") -> NamedEvaluation:
    """A recorded evaluation, without the prefix of its name."""
    return NamedEvaluation(str(record["name"]).removeprefix(prefix), int(record["step"]), Evaluation.from_json(record["evaluation"]))


def handed_over(ledger: Ledger, config: RunConfig, doubts: Doubts) -> str:
    """What the end of the run names. Without an end what would be handed over now of the recorded checkpoints that are there (a killed run may have recorded
    one and not saved it).
    """
    if ledger.finished:
        return str(ledger.line(ledger.entries[-1]).body["handed_over"])
    present = set(kept_checkpoints.names(ledger.folder / "checkpoints"))
    there = {one.step: one.name for one in ledger.checkpoints() if one.name in present}
    return healthiest(there, max(there, default=0), doubts, Schedule(1, 1, config.guard.window_steps))


def overruled_in(ledger: Ledger) -> tuple[RequestRecord, ...]:
    """The requests that overruled the guard in the history of the newest branch, in order."""
    lineage = ledger.lineage
    reached = ((one, lineage[branch]) for branch, one in overrulings(ledger) if branch in lineage)
    return tuple(one for one, (first, end) in reached if first <= one.step and (end is None or one.step <= end))


def doubts_of(config: RunConfig, overruled: Iterable[RequestRecord], verdicts: Iterable[Verdict], steps: Iterable[StepMetrics]) -> Doubts:
    """What the recorded verdicts hold against checkpoints, since a person overruled the guard last; nothing where it was off."""
    if config.guard.action == "off":
        return Doubts()
    metrics, since = {one.step: one for one in steps}, max((one.step for one in overruled), default=0)
    return Doubts.of((metrics.get(verdict.step), verdict) for verdict in verdicts if verdict.step >= since)
