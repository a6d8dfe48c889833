"""Curves as SVG: round ticks, points where they belong, valid for anything."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree

import pytest

from selftrain.report.charts import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MAX_POINTS,
    MAX_SPANS,
    RIGHT,
    TOP,
    WIDTH,
    Chart,
    Series,
    Span,
    drawn_spans,
    fitted,
    picked,
    svg,
    thinned,
    ticks,
)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.25, 0.5, 0.75, 1]),
        (0, 8, [0, 2, 4, 6, 8]),
        (39, 40.5, [39, 39.5, 40, 40.5]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 200, [0, 50, 100, 150, 200]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("values", "expected"), [([], (0, 1)), ([2.0, 2.0], (1.8, 2.2)), ([0.0, 0.0], (0, 1)), ([0.1, 0.93], (0, 1)), ([39.2, 40.3], (39, 40.5))]
)
def test_the_range_fits_the_values(values: list[float], expected: tuple[float, float]) -> None:
    assert fitted(values) == pytest.approx(expected)


def test_points_lie_where_they_belong() -> None:
    drawn = svg(Chart("Vote share", "fraction", (Series("share", ((0, 0.0), (5, 0.5), (10, 1.0))),), (0.0, 1.0)), 10)
    points = re.search(r'points="([^"]+)"', drawn)
    assert points is not None
    first, middle, last = (tuple(map(float, pair.split(","))) for pair in points.group(1).split())
    assert first == (LEFT, HEIGHT - BOTTOM)
    assert last == (WIDTH - RIGHT, TOP)
    assert middle == pytest.approx(((first[0] + last[0]) / 2, (first[1] + last[1]) / 2), abs=0.1)


def test_values_outside_the_limits_stay_inside_the_drawing() -> None:
    drawn = svg(Chart("x", "y", (Series("x", ((0, -3.0), (1, 7.0))),), (0.0, 1.0)), 1)
    assert f'points="{LEFT},{HEIGHT - BOTTOM} {WIDTH - RIGHT},{TOP}"' in drawn.replace(".0", "")


@pytest.mark.parametrize("points", [(), ((0.0, 1.0),), ((0.0, 2.0), (1.0, 2.0)), tuple((float(i), i % 7) for i in range(1000))])
def test_any_number_of_points_is_valid_xml(points: tuple[tuple[float, float], ...]) -> None:
    root = ElementTree.fromstring(svg(Chart('<"Title"> & more', "unit", (Series("a<b", points, bars=tuple((x, y, y + 1) for x, y in points[:2])),)), 1000))
    assert root.attrib["aria-label"] == '<"Title"> & more (unit) over steps'


def test_spans_carry_their_words_and_are_escaped() -> None:
    drawn = svg(Chart("x", "y", (), (0.0, 1.0), (Span(3, 5, "warn", "noise: <script>"), Span(9, 9, "halt", "stop"))), 10)
    root = ElementTree.fromstring(drawn)
    spans = [element for element in root if "span" in element.attrib.get("class", "")]
    assert [span.attrib["class"] for span in spans] == ["span warn", "span halt"]
    assert [span[0].text for span in spans] == ["noise: <script>", "stop"]
    assert float(spans[1].attrib["x"]) + float(spans[1].attrib["width"]) <= WIDTH - RIGHT + 0.1


def test_a_long_line_keeps_its_ends_and_every_peak() -> None:
    points = tuple((float(step), 0.5 + 0.001 * (step % 7)) for step in range(10_000))
    points = (*points[:4321], (4321.0, 0.99), *points[4322:7777], (7777.0, 0.01), *points[7778:])
    found = thinned(points)
    assert len(found) <= MAX_POINTS + 4
    assert {points[0], points[-1], (4321.0, 0.99), (7777.0, 0.01)} <= set(found)
    assert found == sorted(found)
    assert set(found) <= set(points)
    assert thinned(points[:MAX_POINTS]) == list(points[:MAX_POINTS])


def test_many_spans_are_drawn_as_few_that_cover_them() -> None:
    spans = [Span(step, step, "warn", f"at {step}") for step in range(0, 10_000, 2)] + [Span(10_000, 10_000, "halt", "the end")]
    found = drawn_spans(spans)
    assert len(found) <= 2 * MAX_SPANS + 1
    assert found[-1] == spans[-1]
    assert (found[0].first, found[-2].last) == (0, 9998)
    assert all(before.last < after.first for before, after in itertools.pairwise(found))
    assert sum(int(one.words.split()[0]) for one in found[:-1]) == 5000
    assert found[0].words.endswith(f"times, last at {found[0].last}")
    assert drawn_spans(spans[-MAX_SPANS:]) == spans[-MAX_SPANS:]


def test_items_are_picked_at_even_distances() -> None:
    assert picked(range(11), 6) == [0, 2, 4, 6, 8, 10]
    assert picked([1, 2, 3], 6) == [1, 2, 3]
