"""Curves as SVG: round ticks, points where they belong, valid for anything."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from selftrain.report.charts import BOTTOM, HEIGHT, LEFT, RIGHT, TOP, WIDTH, Chart, Series, Span, fitted, svg, ticks


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
