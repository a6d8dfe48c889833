"""What a report is made of: the run folder, read once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftrain import kept_checkpoints
from selftrain.config import RunConfig
from selftrain.control import overruled_steps
from selftrain.evals import Evaluation
from selftrain.guard import Doubts
from selftrain.handover import START, VALIDATED, Schedule, healthiest
from selftrain.ledger import Ledger, read
from selftrain.ledger.objects import Place
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

    validated: on the validation problems, named by their checkpoints. doubts: what its verdicts hold against checkpoints.
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
    def first_finding_step(self) -> int | None:
        return next((verdict.step for verdict in self.verdicts if verdict.findings), None)

    @property
    def harm_since_step(self) -> int | None:
        """Since which step harmful findings have lasted without a break until the last step; None without any."""
        return self.doubts.harm_since_step


def read_record(folder: Place) -> RunRecord:
    """Raises RunFolderError when the folder holds no run, LedgerError when its record is damaged."""
    ledger = read(folder)
    config = read_config(folder)
    verdicts, steps = tuple(ledger.verdicts()), tuple(step.metrics for step in ledger.steps())
    doubts = doubts_of(ledger, config, verdicts, steps)
    evaluations = [NamedEvaluation(str(one["name"]), int(one["step"]), Evaluation.from_json(one["evaluation"])) for one in ledger.evals()]
    return RunRecord(
        folder=folder,
        config=config,
        header=ledger.header,
        environment=ledger.environment,
        steps=steps,
        verdicts=verdicts,
        evaluations=tuple(one for one in evaluations if not one.name.startswith(VALIDATED)),
        validated=tuple(replace(one, name=one.name.removeprefix(VALIDATED)) for one in evaluations if one.name.startswith(VALIDATED)),
        timings=tuple(ledger.timings()),
        num_forks=len(list(ledger.forks())),
        end_reason=ledger.end_reason,
        doubts=doubts,
        handed_over=handed_over(ledger, config, doubts),
        ledger=ledger,
    )


def handed_over(ledger: Ledger, config: RunConfig, doubts: Doubts) -> str:
    """What the end of the run names. Without an end what would be handed over now of the recorded checkpoints that are there (a killed run may have recorded
    one and not saved it).
    """
    if ledger.finished:
        return str(ledger.line(ledger.entries[-1]).body["handed_over"])
    present = set(kept_checkpoints.names(ledger.folder / "checkpoints"))
    there = {one.step: one.name for one in ledger.checkpoints() if one.name in present}
    return healthiest(there, max(there, default=0), doubts, Schedule(1, 1, config.guard.window_steps))


def doubts_of(ledger: Ledger, config: RunConfig, verdicts: Iterable[Verdict], steps: Iterable[StepMetrics]) -> Doubts:
    """What the recorded verdicts hold against checkpoints, since a person overruled the guard last; nothing where it was off."""
    if config.guard.action == "off":
        return Doubts()
    metrics, lineage = {one.step: one for one in steps}, ledger.lineage
    reached = ((step, lineage[branch]) for branch, step in overruled_steps(ledger) if branch in lineage)
    since = max((step for step, (first, end) in reached if first <= step and (end is None or step <= end)), default=0)
    return Doubts.of((metrics.get(verdict.step), verdict) for verdict in verdicts if verdict.step >= since)
