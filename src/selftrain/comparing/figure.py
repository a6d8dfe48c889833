"""The figure of a comparison: gains with their intervals side by side, and curves over the steps, the mean over seeds of each source."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from statistics import fmean

from selftrain.comparing.table import RunRow, StartTable, curve
from selftrain.evals import Interval, TrainingAccuracy
from selftrain.report.charts import Chart, Point, Series, ticks

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 760, 190, 20, 26, 10, 30
METRIC_CURVES = (
    ("Vote share", "vote/share_mean_frac"),
    ("Reward", "reward/mean_frac"),
    ("Groups that train", "admission/admitted_frac"),
)


@dataclass(frozen=True, slots=True)
class Forest:
    """Gains in avg@k by source, in points, with the gain of each seed."""

    rows: tuple[tuple[str, Interval, tuple[float, ...]], ...]

    @classmethod
    def of(cls, table: StartTable) -> Forest:
        return cls(tuple((row.source, row.gain("avg"), tuple(run.gain for run in row.runs)) for row in table.rows))


def forest_svg(forest: Forest) -> str:
    """One line per source: the interval as a bar, its mean as a dot, each seed as a small ring; the line at 0 is no gain."""
    values = [100 * value for _, interval, seeds in forest.rows for value in (interval.low, interval.high, *seeds)]
    low, high = min([0.0, *values]), max([1.0, *values])
    pad = 0.04 * (high - low)
    low, high = low - pad, high + pad
    height = TOP + ROW * len(forest.rows) + BOTTOM

    def x(value: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low), 1)

    parts = [f'<svg class="chart forest" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="Gain in avg@k in points, by source">']
    for tick in ticks(low, high):
        kind = "zero" if tick == 0 else "grid"
        parts.append(f'<line class="{kind}" x1="{x(tick)}" x2="{x(tick)}" y1="{TOP}" y2="{height - BOTTOM}"/>')
        parts.append(f'<text class="tick" x="{x(tick)}" y="{height - 10}" text-anchor="middle">{f"{tick:+g}" if tick else 0}</text>')
    for at, (name, interval, seeds) in enumerate(forest.rows):
        y = TOP + ROW * (at + 0.5)
        words = f"{name}: {100 * interval.value:+.1f} points [{100 * interval.low:+.1f}, {100 * interval.high:+.1f}]"
        parts.append(f'<text class="name" x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(name)}</text>')
        parts.append(f'<line class="bar line{at}" x1="{x(100 * interval.low)}" x2="{x(100 * interval.high)}" y1="{y}" y2="{y}"/>')
        parts += [f'<circle class="seed line{at}" cx="{x(100 * value)}" cy="{y}" r="3"/>' for value in seeds]
        parts.append(f'<circle class="dot line{at}" cx="{x(100 * interval.value)}" cy="{y}" r="5"><title>{escape(words)}</title></circle>')
    return "".join(parts) + "</svg>"


def charts_of(table: StartTable) -> tuple[Chart, ...]:
    """Curves of the means over seeds; charts without any point are left out."""
    made = [
        Chart(f"Held-out avg@{table.num_samples}", "fraction", series(table, lambda runs: evaluated(runs, "avg")), (0.0, 1.0)),
        Chart(f"Held-out maj@{table.num_samples}", "fraction", series(table, lambda runs: evaluated(runs, "maj")), (0.0, 1.0)),
        Chart("Proxy accuracy", "fraction", series(table, lambda runs: trained(runs, lambda one: one.proxy_accuracy_frac)), (0.0, 1.0)),
        Chart("Pseudo-label accuracy", "fraction", series(table, lambda runs: trained(runs, lambda one: one.label_accuracy_frac)), (0.0, 1.0)),
    ]
    for title, key in METRIC_CURVES:
        lines = series(table, lambda runs, key=key: curve(runs, lambda step: step.values.get(key)))  # type: ignore[misc]
        fits = all(0 <= value <= 1 for one in lines for _, value in one.points)
        made.append(Chart(title, "fraction" if fits else "reward", lines, (0.0, 1.0) if fits else None))
    return tuple(chart for chart in made if any(one.points for one in chart.series))


def series(table: StartTable, points: Callable[[Sequence[RunRow]], tuple[Point, ...]]) -> tuple[Series, ...]:
    """A line per source, all of them, so that a source has one colour in every chart."""
    return tuple(Series(row.source, points(row.runs)) for row in table.rows)


def evaluated(runs: Sequence[RunRow], measure: str) -> tuple[Point, ...]:
    """(steps done, mean over runs) where runs were evaluated; the last weights at the end."""
    at: dict[int, list[float]] = {}
    for run in runs:
        found = {one.step: one.evaluation for one in run.record.evaluations if one.name != "after"}
        for step, one in {**found, run.end_step: run.points["end"]}.items():
            at.setdefault(step, []).append(getattr(one, measure).value)
    return tuple((float(step), fmean(values)) for step, values in sorted(at.items()))


def trained(runs: Sequence[RunRow], value: Callable[[TrainingAccuracy], float | None]) -> tuple[Point, ...]:
    """(step, mean over runs) of an accuracy in training."""
    at: dict[int, list[float]] = {}
    for run in runs:
        for step, one in run.training.items():
            if (found := value(one)) is not None:
                at.setdefault(step, []).append(found)
    return tuple((float(step), fmean(values)) for step, values in sorted(at.items()))
