"""Curves as inline SVG: numbers in, text out. Colours come from the page's classes, so that they follow dark and light."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TypeVar

WIDTH, HEIGHT = 380, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 12, 26
NUM_TICKS = 4
MAX_POINTS = 400
"""A line keeps about so many points, more than its drawing has dots across."""
MAX_BARS = 100
MAX_SPANS = 60
"""Of more findings, neighbours are drawn as one: a report of any run stays small."""

T = TypeVar("T")
Point = tuple[float, float]
Axis = Callable[[float], float]
"""A value -> its place in the drawing."""


@dataclass(frozen=True, slots=True)
class Series:
    """A line. points: (step, value) by step. bars: (step, low, high) of intervals, drawn upright through their points."""

    name: str
    points: tuple[Point, ...]
    bars: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Span:
    """Steps first..last (both included) with something to say about them, `kind` warn or halt."""

    first: int
    last: int
    kind: str
    words: str


@dataclass(frozen=True, slots=True)
class Chart:
    """Lines over the steps of a run. limits: the fixed range of values, None to fit them."""

    title: str
    unit: str
    series: tuple[Series, ...]
    limits: tuple[float, float] | None = None
    spans: tuple[Span, ...] = ()


def svg(chart: Chart, last_step: int) -> str:
    """The chart as one SVG element, steps 0..last_step; valid for any number of points, none included."""
    low, high = chart.limits or fitted([value for series in chart.series for _, value in series.points])
    span_x = max(1, last_step)

    def x(step: float) -> float:
        return round(LEFT + (WIDTH - LEFT - RIGHT) * step / span_x, 1)

    def y(value: float) -> float:
        return round(TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(max(value, low), high) - low) / (high - low)), 1)

    label = f"{chart.title} ({chart.unit}) over steps"
    parts = [f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts += [span_svg(span, x) for span in drawn_spans(chart.spans)]
    for tick in ticks(low, high):
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick)}" y2="{y(tick)}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 3.5}" text-anchor="end">{number(tick)}</text>')
    for tick in sorted({int(step) for step in ticks(0, span_x)} | {0}):
        parts.append(f'<text class="tick" x="{x(tick)}" y="{HEIGHT - 10}" text-anchor="middle">{tick}</text>')
    parts += [series_svg(series, index, x, y) for index, series in enumerate(chart.series)]
    return "".join(parts) + "</svg>"


@dataclass(frozen=True, slots=True)
class Timeline:
    """The guard's verdicts over the steps. judged: steps that it judged. marks: (step, words) of checkpoints, `handed` the one handed over."""

    judged: tuple[int, ...]
    spans: tuple[Span, ...]
    marks: tuple[tuple[int, str], ...]
    handed: int | None


def timeline_svg(line: Timeline, last_step: int) -> str:
    """A strip as wide as the page: what the guard said at each step, checkpoints as ticks under it."""
    width, top, height = 1000, 6, 22
    span_x = max(1, last_step)

    def x(step: float) -> float:
        return round(LEFT / 2 + (width - LEFT) * step / span_x, 1)

    words = f"{len(line.judged)} verdicts of the guard, {sum(span.last - span.first + 1 for span in line.spans)} of them with a finding"
    parts = [f'<svg class="chart timeline" viewBox="0 0 {width} 62" role="img" aria-label="{words}">']
    if line.judged:
        left, right = x(line.judged[0]), x(line.judged[-1] + 1)
        parts.append(f'<rect class="span fine" x="{left}" y="{top}" width="{max(2.0, right - left):.1f}" height="{height}"/>')
    for span in drawn_spans(line.spans):
        left, right = x(span.first), x(span.last + 1)
        title = escape(span.words)
        parts.append(
            f'<rect class="span {span.kind} full" x="{left}" y="{top}" width="{max(3.0, right - left):.1f}" height="{height}"><title>{title}</title></rect>'
        )
    for step, name in line.marks:
        kind = "handed" if step == line.handed else "mark"
        parts.append(f'<path class="{kind}" d="M{x(step)} {top + height + 2}l4 7h-8z"><title>{escape(name)}</title></path>')
    for tick in sorted({int(step) for step in ticks(0, span_x)} | {0}):
        parts.append(f'<text class="tick" x="{x(tick)}" y="56" text-anchor="middle">{tick}</text>')
    return "".join(parts) + "</svg>"


def span_svg(span: Span, x: Axis) -> str:
    left, right = x(max(0, span.first - 0.5)), x(span.last + 0.5)
    width = max(2.0, min(right, WIDTH - RIGHT) - left)
    height = HEIGHT - TOP - BOTTOM
    return f'<rect class="span {span.kind}" x="{left}" y="{TOP}" width="{width:.1f}" height="{height}"><title>{escape(span.words)}</title></rect>'


def series_svg(series: Series, index: int, x: Axis, y: Axis) -> str:
    name = f"line{index}"
    parts = [f'<line class="bar {name}" x1="{x(at)}" x2="{x(at)}" y1="{y(low)}" y2="{y(high)}"/>' for at, low, high in picked(series.bars, MAX_BARS)]
    if len(series.points) > 1:
        path = " ".join(f"{x(step)},{y(value)}" for step, value in thinned(series.points))
        parts.append(f'<polyline class="line {name}" points="{path}"/>')
    if series.bars or len(series.points) == 1:
        parts += [
            f'<circle class="dot {name}" cx="{x(step)}" cy="{y(value)}" r="3"><title>{escape(series.name)}, step {step:g}: {value:.3f}</title></circle>'
            for step, value in picked(series.points, MAX_BARS)
        ]
    return "".join(parts)


def picked(items: Sequence[T], most: int) -> list[T]:
    """The items, or `most` of them at even distances, the first and the last among them."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """A line that looks the same: of each of MAX_POINTS / 2 equal stretches its lowest and its highest point, and both ends. No peak is lost."""
    if len(points) <= MAX_POINTS:
        return list(points)
    size = math.ceil(2 * len(points) / MAX_POINTS)
    stretches = [points[at : at + size] for at in range(0, len(points), size)]
    ends = [edge for part in stretches for edge in (min(part, key=lambda one: one[1]), max(part, key=lambda one: one[1]))]
    return sorted({points[0], *ends, points[-1]})


def drawn_spans(spans: Sequence[Span]) -> list[Span]:
    """The spans; where there are many, neighbours of one kind with little between them become one that says how many it stands for."""
    if len(spans) <= MAX_SPANS:
        return list(spans)
    near = (spans[-1].last - spans[0].first) / MAX_SPANS
    groups: list[list[Span]] = []
    for span in spans:
        if groups and span.kind == groups[-1][0].kind and span.last - groups[-1][0].first < near:
            groups[-1].append(span)
        else:
            groups.append([span])
    return [part[0] if len(part) == 1 else Span(part[0].first, part[-1].last, part[0].kind, f"{len(part)} times, last {part[-1].words}") for part in groups]


def fitted(values: Sequence[float]) -> tuple[float, float]:
    """A range around the values with round ends; never empty."""
    finite = [value for value in values if math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
    low = 0.0 if low >= 0 and low < 0.6 * high else low
    if high - low < 1e-9:
        pad = abs(high) * 0.1 or 1.0
        return low - (0 if low == 0 else pad), high + pad
    step = round_step((high - low) / NUM_TICKS)
    return math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step


def ticks(low: float, high: float) -> list[float]:
    """Round values in [low, high], about NUM_TICKS of them. Example: ticks(0, 1) is 0, 0.25, 0.5, 0.75, 1."""
    step = round_step((high - low) / NUM_TICKS)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def round_step(step: float) -> float:
    """The next 1, 2, 2.5 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= step * (1 - 1e-9))


def number(value: float) -> str:
    """Short text of a tick."""
    return f"{value:.4g}" if abs(value) < 10_000 else f"{value / 1000:.4g}k"
