"""A run's held-out accuracy over its steps, and what became of the run: pure functions of curves, and the one that reads a curve.

A curve is (steps done, avg@16) of its evaluations, ascending. Between two evaluations accuracy is taken to be linear, after the last one constant.
The peak is the largest accuracy *so far*, so a run that rises again is measured against what it had reached by then.

    collapsed   at least 10 points under its peak in 5 evaluations
    fallen      at least 10 points under its peak, in fewer: the run ended, or recovered
    between     3 points under it, never 10
    healthy     never 3 points under it
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import accumulate, pairwise
from pathlib import Path
from statistics import fmean

from selftrain.checkpoints import place_of
from selftrain.ledger import Ledger, read

Curve = Sequence[tuple[int, float]]
Shares = tuple[float, ...]
"""the share of right samples of each held-out problem"""
COLLAPSE_FRAC, COLLAPSE_EVALUATIONS = 0.10, 5
HEALTHY_FRAC = 0.03
IN_TIME_FRAC = 0.05
"""a collapse is found in time before held-out accuracy has lost so much from its peak"""
_EXACT = 1e-9


class Fate(StrEnum):
    COLLAPSED = "collapsed"
    FALLEN = "fallen"
    BETWEEN = "between"
    HEALTHY = "healthy"


def losses(curve: Curve) -> list[float]:
    """At each evaluation, the peak so far minus the accuracy; never negative."""
    return [peak - value for peak, (_, value) in zip(accumulate((value for _, value in curve), max), curve, strict=True)]


def fate(curve: Curve) -> Fate:
    """What became of a run."""
    lost = losses(curve)
    low = sum(one >= COLLAPSE_FRAC - _EXACT for one in lost)
    if low:
        return Fate.COLLAPSED if low >= COLLAPSE_EVALUATIONS else Fate.FALLEN
    return Fate.HEALTHY if max(lost) < HEALTHY_FRAC - _EXACT else Fate.BETWEEN


def accuracy_at(curve: Curve, step: float) -> float:
    """Accuracy after so many steps. ValueError before the first evaluation."""
    if step < curve[0][0]:
        raise ValueError(f"the first evaluation is that of step {curve[0][0]}, not of {step} or before")
    for (left, old), (right, new) in pairwise(curve):
        if step <= right:
            return old + (new - old) * (step - left) / (right - left)
    return curve[-1][1]


def loss_at(curve: Curve, step: float) -> float:
    """The peak so far minus the accuracy, after so many steps."""
    now = accuracy_at(curve, step)
    return max(0.0, max(value for at, value in curve if at <= step) - now)


def step_of_loss(curve: Curve, lost: float = IN_TIME_FRAC) -> float | None:
    """The steps after which accuracy has lost so much from its peak for the first time; None where it never has."""
    peak = curve[0][1]
    for (left, old), (right, new) in pairwise(curve):
        peak = max(peak, old)
        if new <= peak - lost + _EXACT:
            return left + (right - left) * (old - (peak - lost)) / (old - new)
    return None


def in_time(curve: Curve, step: int | None) -> bool:
    """Whether a finding at this step came before accuracy had lost 5 points. A step is judged before its own update, so its verdict is on `step` updates."""
    late = step_of_loss(curve)
    return step is not None and (late is None or step < late)


def points_of(folder: Path) -> dict[int, Shares]:
    """Steps done -> the evaluation of the held-out problems at that point of a run's history, as far as it is recorded.

    The last evaluation of a run is of what it hands over, which need not be its last weights: it stands at the steps of that checkpoint.
    """
    ledger, found = read(folder), {}
    for record in ledger.evals():
        name, done = str(record["name"]), record["evaluation"]
        place = (0, 0) if name == "before" else (0, handed_over(ledger)) if name == "after" else place_of(name)
        if place is not None:
            found[place[1]] = tuple(one["num_right"] / done["num_samples"] for one in done["results"])
    return dict(sorted(found.items()))


def handed_over(ledger: Ledger) -> int:
    """Steps done of what a finished run hands over; 0: its start."""
    name = next(str(line.body["handed_over"]) for line in ledger.lines("end"))
    return (place_of(name) or (0, 0))[1]


def curve_of(points: Mapping[int, Shares]) -> list[tuple[int, float]]:
    return [(step, fmean(shares)) for step, shares in sorted(points.items())]
