"""How often a guard was right: shares with exact bounds, distributions, and the page of a judgement."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np

from guard_curves import Fate, Shares
from guard_runs import Judged
from selftrain.evals.bootstrap import Interval, mean_interval

BEST_FRAC, BASE_FRAC = 0.03, 0.02
"""a model that is handed over should not be so far under the best checkpoint, nor under the base"""
BY = {"warned": "any finding", "harmed": "would halt"}
KINDS = ("true answers", "easy prompts", "at the floor", "others", "stands still")
LETTERS = {Fate.COLLAPSED: "C", Fate.FALLEN: "F", Fate.BETWEEN: "b", Fate.HEALTHY: "H"}


def clopper_pearson(hits: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """Exact bounds of a share (Clopper and Pearson 1934): those p of which so many hits or more, or so few or fewer, have a chance of (1 - level) / 2."""
    tail = (1 - level) / 2
    low = 0.0 if hits == 0 else bisected(lambda p: at_least(hits, of, p) < tail)
    high = 1.0 if hits == of else bisected(lambda p: 1 - at_least(hits + 1, of, p) > tail)
    return low, high


def at_least(hits: int, of: int, p: float) -> float:
    """The chance of so many hits or more."""
    return math.fsum(math.comb(of, k) * p**k * (1 - p) ** (of - k) for k in range(hits, of + 1))


def bisected(is_below: Callable[[float], bool]) -> float:
    """The p in [0, 1] up to which something holds."""
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if is_below(middle) else (low, middle)
    return (low + high) / 2


def share(hits: int, of: int) -> str:
    """Example: `9 of 10: 90 % [55, 100]`."""
    if not of:
        return "none"
    low, high = clopper_pearson(hits, of)
    return f"{hits} of {of}: {100 * hits / of:.0f} % [{100 * low:.0f}, {100 * high:.0f}]"


@dataclass(frozen=True)
class Score:
    """What a guard makes of some runs. found, disturbed: how many of the collapsed ones it found in time, of the healthy ones it had a finding in, by `BY`."""

    collapsed: int
    found: Mapping[str, int]
    fallen: int
    fallen_found: Mapping[str, int]
    healthy: int
    disturbed: Mapping[str, int]


def score(runs: Iterable[Judged]) -> Score:
    runs = list(runs)
    of = {fate: [one for one in runs if one.run.fate is fate] for fate in Fate}

    def found(fate: Fate) -> dict[str, int]:
        return {by: sum(one.in_time(by) for one in of[fate]) for by in BY}

    disturbed = {by: sum(one.found(by) is not None for one in of[Fate.HEALTHY]) for by in BY}
    fell, fallen, healthy = len(of[Fate.COLLAPSED]), len(of[Fate.FALLEN]), len(of[Fate.HEALTHY])
    return Score(fell, found(Fate.COLLAPSED), fallen, found(Fate.FALLEN), healthy, disturbed)


def parts(runs: Sequence[Judged]) -> dict[str, list[Judged]]:
    """All of them, then by half, start, task, source, learning rate and seed."""
    found: dict[str, list[Judged]] = {"all": list(runs)}
    for key in (
        lambda one: f"half {one.run.half}",
        lambda one: f"start {one.run.cell.start}",
        lambda one: f"task {one.run.cell.task} ({one.run.half})",
        lambda one: f"source {one.run.cell.source}",
        lambda one: f"rate {one.run.cell.learning_rate}",
        lambda one: f"seed {one.run.cell.seed}",
    ):
        for name in sorted({key(one) for one in runs}):
            found[name] = [one for one in runs if key(one) == name]
    return found


def row_of(name: str, one: Score) -> str:
    cells = [share(one.found[by], one.collapsed) for by in BY] + [share(one.fallen_found[by], one.fallen) for by in BY]
    return f"| {name} | " + " | ".join([*cells, *(share(one.disturbed[by], one.healthy) for by in BY)]) + " |"


_COLUMNS = tuple(f"{what}: {words}" for what in ("collapsed, found in time", "fallen, found in time", "healthy, disturbed") for words in BY.values())
HEAD = (f"| runs | {' | '.join(_COLUMNS)} |", "|---" * (len(_COLUMNS) + 1) + "|")


def there_is(runs: Sequence[Judged]) -> list[str]:
    """Which cells were recorded, and the fate of each seed's run."""
    columns = list(dict.fromkeys((one.run.cell.task, one.run.cell.start) for one in runs))
    rows = list(dict.fromkeys((one.run.cell.source, one.run.cell.learning_rate) for one in runs))
    letters: dict[tuple[tuple[str, str], tuple[str, str]], str] = {}
    for one in sorted(runs, key=lambda one: one.run.cell.seed):
        cell = one.run.cell
        place = (cell.source, cell.learning_rate), (cell.task, cell.start)
        letters[place] = letters.get(place, "") + LETTERS[one.run.fate]
    lines = ["| source, rate | " + " | ".join(f"{task} {start}" for task, start in columns) + " |", "|---|" + "---|" * len(columns)]
    return [*lines, *(f"| {row[0]} {row[1]} | " + " | ".join(letters.get((row, column), "") for column in columns) + " |" for row in rows)]


def spread(values: Sequence[float], unit: str) -> str:
    """Example: `median 2.0, quartiles 1.0 to 3.0, from 0.0 to 5.0 points (12 runs)`."""
    if not values:
        return "none"
    low, first, middle, third, high = np.percentile(values, [0, 25, 50, 75, 100])
    return f"median {middle:.1f}, quartiles {first:.1f} to {third:.1f}, from {low:.1f} to {high:.1f} {unit} ({len(values)} runs)"


def when(runs: Sequence[Judged]) -> list[str]:
    lines = ["| runs | by | found | steps after the 5th point was lost | points under the peak when found |", "|---|---|---|---|---|"]
    for fate in (Fate.COLLAPSED, Fate.FALLEN):
        for by, words in BY.items():
            of = [one for one in runs if one.run.fate is fate]
            delays = [delay for one in of if (delay := one.delay(by)) is not None]
            lost = [100 * points for one in of if (points := one.lost(by)) is not None]
            lines.append(f"| {fate} | {words} | {len(delays)} of {len(of)} | {spread(delays, 'steps')} | {spread(lost, 'points')} |")
    return lines


@dataclass(frozen=True)
class Handover:
    """What is handed over against the base and the best checkpoint, held-out avg@16, paired over problems. fresh: on problems that chose nothing."""

    steps: int
    best: int
    to_base: Interval
    to_best: Interval
    fresh: bool


def handover(one: Judged, fresh: Mapping[int, Shares]) -> Handover | None:
    """None where the checkpoint that is handed over was not evaluated. fresh: evaluations on fresh problems, used where all three are there."""
    places = {0, one.handed_over, one.best}
    points = fresh if places <= fresh.keys() else one.run.points
    if not places <= points.keys():
        return None

    def minus(other: int) -> Interval:
        return mean_interval([now - then for now, then in zip(points[one.handed_over], points[other], strict=True)])

    return Handover(one.handed_over, one.best, minus(0), minus(one.best), points is fresh)


def handovers(found: Mapping[str, Sequence[Handover | None]]) -> list[str]:
    columns = ("within 3 points of the best", "surely not", "more than 2 points under the base", "surely", "worst against the base, points", "mean gain")
    lines = [f"| runs | judged | {' | '.join(columns)} |", "|---" * (len(columns) + 2) + "|"]
    for name, given in found.items():
        known = [one for one in given if one is not None]
        if known:
            near = sum(one.to_best.value >= -BEST_FRAC for one in known)
            under = sum(one.to_base.value < -BASE_FRAC for one in known)
            sure = sum(one.to_best.high < -BEST_FRAC for one in known), sum(one.to_base.high < -BASE_FRAC for one in known)
            worst, gain = min(one.to_base.value for one in known), fmean(one.to_base.value for one in known)
            cells = [
                str(len(known)),
                share(near, len(known)),
                str(sure[0]),
                share(under, len(known)),
                str(sure[1]),
                f"{100 * worst:+.1f}",
                f"{100 * gain:+.1f}",
            ]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def example(one: Judged) -> str:
    """A run in one line."""
    curve = " ".join(f"{100 * value:.0f}" for _, value in one.run.curve)
    said = ", ".join(f"step {step}: {', '.join(rules)}" for step, rules in zip((one.warned, one.harmed), one.said, strict=True) if step is not None)
    return f"- `{one.run.cell.name}` ({one.run.fate}, {one.run.kind}): {curve}; {said or 'no finding'}"


def errors(runs: Sequence[Judged]) -> list[str]:
    """The collapses that were missed or found late, and the healthy runs that were disturbed."""
    missed = [one for one in runs if one.run.fate in (Fate.COLLAPSED, Fate.FALLEN) and not one.in_time("harmed")]
    disturbed = [one for one in runs if one.run.fate is Fate.HEALTHY and one.warned is not None]
    lines = ["Collapsed or fallen, and not halted in time (avg@16 at each evaluation, in points; first finding and first harm):", ""]
    lines += [example(one) for one in missed] or ["- none"]
    return [*lines, "", "Healthy, and disturbed:", "", *([example(one) for one in disturbed] or ["- none"])]


def page(runs: Sequence[Judged], fresh: Mapping[str, Mapping[int, Shares]]) -> str:
    """The judgement as Markdown. fresh: by the name of a cell, its evaluations on fresh problems."""
    fates = Counter(one.run.fate for one in runs)
    found = {name: [handover(one, fresh.get(one.run.cell.name, {})) for one in of] for name, of in parts(runs).items()}
    healthy = [one for one in runs if one.run.fate is Fate.HEALTHY]
    kinds = {kind: [one for one in healthy if one.run.kind == kind] for kind in KINDS}
    num_fresh = sum(one is not None and one.fresh for one in found["all"])
    short = sum(one.run.num_steps not in one.run.points for one in runs)
    lines = [
        "# The guard on recorded runs",
        "",
        f"{len(runs)} runs: " + ", ".join(f"{fates[fate]} {fate} ({LETTERS[fate]})" for fate in Fate) + ".",
        "Collapsed: held-out avg@16 at least 10 points under its peak so far in 5 of its evaluations; fallen: in fewer; healthy: never 3 points",
        "under. In time: before 5 points are lost; accuracy between two evaluations is taken to be linear, and a verdict of step s is on s updates.",
        "Brackets: Clopper-Pearson, 95 %.",
        f"{short} runs handed over another checkpoint than their last weights, which were not evaluated then (`guard.py measure` does it).",
        "",
        *there_is(runs),
        "",
        "## Found and disturbed",
        "",
        *HEAD,
        *(row_of(name, score(of)) for name, of in parts(runs).items()),
        *(row_of(f"healthy: {kind}", score(of)) for kind, of in kinds.items() if of),
        row_of("healthy: all but `stands still`", score([one for one in healthy if not one.run.stands_still])),
        "",
        "## When",
        "",
        *when(runs),
        "",
        "## What is handed over",
        "",
        "With `guard.action = halt`. Surely: the whole paired 95 % interval over problems.",
        f"{num_fresh} of {len(found['all'])} runs on fresh problems; the others on those that show which checkpoint was the best, which flatters it.",
        "",
        *handovers(found),
        "",
        "## Misses and false alarms",
        "",
        *errors(runs),
    ]
    return "\n".join(lines) + "\n"


def in_json(one: Judged, found: Handover | None) -> dict[str, Any]:
    """A run's judgement as JSON values; accuracies and differences as fractions."""
    gaps = None if found is None else {"to_base": found.to_base.value, "to_best": found.to_best.value, "best": found.best, "fresh": found.fresh}
    return {
        "cell": one.run.cell.name,
        "half": one.run.half,
        "fate": str(one.run.fate),
        "kind": one.run.kind,
        "curve": [[step, round(value, 4)] for step, value in one.run.curve],
        "warned": one.warned,
        "harmed": one.harmed,
        "said": one.said,
        "in_time": {by: one.in_time(by) for by in BY},
        "lost": {by: one.lost(by) for by in BY},
        "delay": {by: one.delay(by) for by in BY},
        "handed_over": one.handed_over,
        "gaps": gaps,
    }
