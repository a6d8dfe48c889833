"""The recorded runs of the guard's laboratory, and what a guard says of them: its verdicts are made again from the record, with any rules."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import fmean

from guard_curves import Curve, Fate, Shares, curve_of, fate, in_time, loss_at, points_of, step_of_loss
from guard_lab import FIT, JUDGE, Cell, done
from guard_probes import read_probes, with_probes
from selftrain.compose_probes import drawing
from selftrain.config import GuardSection, RunConfig
from selftrain.guard import RULES, Doubts, Rule
from selftrain.guard.looks import SUPPORT
from selftrain.guard_stream import Step, steps_of_run, verdicts
from selftrain.handover import START, Schedule, healthiest
from selftrain.ledger import read
from selftrain.probes import base_of
from selftrain.probes.support import support_signals
from selftrain.run import read_config
from selftrain.types import Action, Verdict

NAME = re.compile(r"([a-z]+)-([a-z]+)(\d+)-(\w+)-(\d+e-\d+)-seed-(\d+)")
EASY_SHARE_FRAC, FLOOR_FRAC, STILL_FRAC = 0.95, 0.10, 0.10
SECTION = GuardSection(action="halt")


def cell_of(name: str) -> Cell | None:
    """The cell of a run's folder; None for other folders."""
    match = NAME.fullmatch(name)
    return Cell(match[1], f"{match[2]}:{match[3]}", match[5], match[4], int(match[6])) if match else None


@dataclass(frozen=True)
class LabRun:
    """A finished run. points: as `points_of`. steps: what its guard was shown. every: distance of its checkpoints, num_steps: its length.
    evals_every: distance of its evaluations; those between are of what was handed over, and tell nothing of what became of it.
    """

    cell: Cell
    points: Mapping[int, Shares]
    steps: tuple[Step, ...]
    every: int
    num_steps: int
    evals_every: int = 1

    @cached_property
    def curve(self) -> Curve:
        return curve_of({step: shares for step, shares in self.points.items() if step % self.evals_every == 0})

    @cached_property
    def fate(self) -> Fate:
        return fate(self.curve)

    @property
    def half(self) -> str:
        return "FIT" if self.cell.task in FIT else "JUDGE"

    @property
    def kind(self) -> str:
        """Of healthy runs: in which next to nothing trains; with true answers; on easy prompts, whose vote share ends at 0.95 or above; with nothing to
        lose; or none of these.
        """
        if self.stands_still:
            return "stands still"
        if self.cell.source == "reference":
            return "true answers"
        if max(value for _, value in self.curve) < FLOOR_FRAC:
            return "at the floor"
        return "easy prompts" if self.share >= EASY_SHARE_FRAC else "others"

    @property
    def stands_still(self) -> bool:
        """Whether a group trained in less than a tenth of the steps: to stop such a run takes nothing from it."""
        return fmean(step.metrics.values.get("admission/admitted_frac", 1.0) > 0 for step in self.steps) < STILL_FRAC

    @property
    def share(self) -> float:
        """Mean vote share of the last five steps."""
        return fmean(step.metrics.values["vote/share_mean_frac"] for step in self.steps[-5:])


def load(folder: Path, tasks: Collection[str] = (*FIT, *JUDGE), measured: Path | None = None, probes: Path | None = None) -> Iterator[LabRun]:
    """The finished runs of these tasks, by name. Folders of other tasks are not opened.

    measured: where evaluations made later are (`guard_measure.py`); probes: probes made later, which take the place of the recorded ones (`guard_probes.py`).
    """
    for path in sorted(folder.iterdir()):
        cell = cell_of(path.name)
        if cell is None or cell.task not in tasks or not done(path):
            continue
        points = points_of(path)
        extra = {} if measured is None else read_measured(measured, cell).get("held_out", {})
        config = read_config(path)
        steps = with_probes(with_start(tuple(steps_of_run(path)), path, config), {} if probes is None else read_probes(probes, cell))
        yield LabRun(
            cell,
            points | {int(step): tuple(shares) for step, shares in extra.items()},
            steps,
            config.run.checkpoint_every_steps,
            config.run.num_steps,
            config.evals.every_steps or 1,
        )


def with_start(steps: tuple[Step, ...], path: Path, config: RunConfig) -> tuple[Step, ...]:
    """What the start's own votes say, worked out again from the record: runs from before `support/start_share_frac` lack it."""
    asked = read(path).probed(0)
    if not steps or SUPPORT not in steps[0].metrics.values or not asked:
        return steps
    again = support_signals(asked, base_of(asked).votes, drawing(config).num_supporting)
    first = replace(steps[0], metrics=replace(steps[0].metrics, values={**steps[0].metrics.values, **again}))
    return (first, *steps[1:])


def read_measured(folder: Path, cell: Cell) -> dict[str, dict[str, list[float]]]:
    """`held_out` and `fresh`: steps done -> shares of right samples, of evaluations that were made after the run."""
    path = folder / f"{cell.name}.json"
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


@dataclass(frozen=True)
class Judged:
    """What a guard says of a run that it may halt. warned: step of the first finding, harmed: of the first verdict that halts; None without one.

    said: the names of the rules of these two verdicts' findings. handed_over: steps done of the checkpoint, 0: the start.
    """

    run: LabRun
    warned: int | None
    harmed: int | None
    said: tuple[tuple[str, ...], tuple[str, ...]]
    handed_over: int

    def found(self, by: str) -> int | None:
        """by: `warned` or `harmed`."""
        step: int | None = getattr(self, by)
        return step

    def in_time(self, by: str) -> bool:
        return in_time(self.run.curve, self.found(by))

    def lost(self, by: str) -> float | None:
        """Accuracy lost from the peak at that step."""
        step = self.found(by)
        return None if step is None else loss_at(self.run.curve, step)

    def delay(self, by: str) -> float | None:
        """Steps after accuracy had lost 5 points; negative before."""
        step, late = self.found(by), step_of_loss(self.run.curve)
        return None if step is None or late is None else step - late

    @property
    def best(self) -> int:
        """Steps done of the best checkpoint, the start among them; the earliest of equal ones."""
        return max(self.run.curve, key=lambda one: (one[1], -one[0]))[0]


def judged(run: LabRun, rules: Sequence[Rule] = tuple(RULES.values())) -> Judged:
    """The verdicts of a guard with these rules, and what would be handed over with `guard.action = halt`."""
    found = list(verdicts(run.steps, SECTION, rules))
    warned = next((verdict for verdict in found if verdict.action is not Action.CONTINUE), None)
    harmed = next((verdict for verdict in found if verdict.action is Action.HALT), None)
    said = tuple(() if one is None else tuple(finding.rule for finding in one.findings) for one in (warned, harmed))
    return Judged(run, warned and warned.step, harmed and harmed.step, (said[0], said[1]), handed_over(run, found))


def handed_over(run: LabRun, found: Sequence[Verdict]) -> int:
    """By the product's own rule, at the first verdict that halts or at the end. The halted step has no update, so no checkpoint either."""
    doubts, steps_done, updates = Doubts(), run.num_steps, run.num_steps
    for step, verdict in zip(run.steps, found, strict=False):
        doubts = doubts.after(step.metrics, verdict)
        if verdict.action is Action.HALT:
            steps_done, updates = verdict.step + 1, verdict.step
            break
    schedule = Schedule(run.every, run.num_steps, SECTION.window_steps)
    name = healthiest({steps: str(steps) for steps in range(1, updates + 1) if schedule.is_due(steps)}, steps_done, doubts, schedule)
    return 0 if name == START else int(name)


def with_limits(scales: Mapping[str, float]) -> list[Rule]:
    """All rules, the limit of each times its scale. ValueError for an unknown one."""
    if unknown := scales.keys() - RULES.keys():
        raise ValueError(f"there is no rule {', '.join(sorted(unknown))}: rules are {', '.join(RULES)}")
    return [replace(rule, limit=rule.limit * scales.get(rule.name, 1.0)) for rule in RULES.values()]
