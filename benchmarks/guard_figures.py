"""Figures of the judgement: one run without and with the guard, and how much was lost when collapses were found. SVG, and PNG where there is a Chromium."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from html import escape
from pathlib import Path
from statistics import fmean

from guard_curves import IN_TIME_FRAC, Fate, curve_of, handed_over, points_of
from guard_runs import Judged, LabRun
from guard_tables import BY
from selftrain.guard_stream import Step, steps_of_run
from selftrain.ledger import read
from selftrain.report import charts
from selftrain.report.charts import Chart, Point, Series, Span

COLOURS = ("#b5541c", "#1f6fb2", "#3c7d3f")
STYLE = "text{font:10.5px sans-serif;fill:#555}.grid{stroke:#ddd}.line{fill:none;stroke-width:1.8}"
STYLE += ".span{fill:#e9a23b;opacity:.25}"
STYLE += "".join(f".line{at}{{stroke:{colour}}}.dot.line{at}{{fill:{colour}}}" for at, colour in enumerate(COLOURS))
CHARACTER = 5.6
"""width of a letter of the legend"""
SCALE = 2
"""pixels of the PNG for each of the drawing"""


def two_runs(run: LabRun, folder: Path, way: str) -> str:
    """The recorded run, whose guard only warned, beside the one in `folder`, whose guard acted: held-out accuracy, which no guard sees, and the vote share."""
    ledger, last = read(folder), run.num_steps
    acted = [one.left_at - 1 for one in ledger.branches] or [verdict.step for verdict in ledger.verdicts() if str(verdict.action) == "halt"]
    spans = tuple(Span(step, step, "halt", f"the guard acts at step {step}") for step in acted)
    points, end = points_of(folder), handed_over(ledger)
    held_out = [Series("without", in_floats(run.curve)), Series("with", in_floats(curve_of(points)))]
    held_out += [Series("handed over", ((float(end), fmean(points[end])),))] if end in points else []
    shares = [Series("without", of(run.steps, last)), Series("with", of(tuple(steps_of_run(folder)), last))]
    charts_ = [
        Chart("held-out avg@16", "fraction", tuple(held_out), None, spans),
        Chart("vote share, which the reward follows", "fraction", tuple(shares), (0.0, 1.0), spans),
    ]
    acts = "halts" if way == "halt" else f"rolls back ({way.replace('_', ' ')})"
    return panel([(chart, last) for chart in charts_], ("the guard only warns", f"it {acts} where shaded", "what is handed over then"))


def lost_when_found(runs: Sequence[Judged]) -> str:
    """Of the collapsed and fallen runs, the share that was found before so many points were lost."""
    fell = [one for one in runs if one.run.fate in (Fate.COLLAPSED, Fate.FALLEN)]
    lost = {by: sorted(100 * points for one in fell if (points := one.lost(by)) is not None) for by in BY}
    most = max((values[-1] for values in lost.values() if values), default=0.0)
    last = next(end for end in (8, 20, 40, 80, 100) if end >= most)
    lines = tuple(Series(words, stairs(lost[by], len(fell), last)) for by, words in BY.items())
    limit = Series("in time", ((100 * IN_TIME_FRAC, 0.0), (100 * IN_TIME_FRAC, 1.0)))
    chart = Chart(f"share of {len(fell)} collapses found before so many points were lost", "fraction", (*lines, limit), (0.0, 1.0))
    return panel([(chart, last)], (*BY.values(), "5 points"))


def stairs(values: Sequence[float], of_all: int, last: float) -> tuple[Point, ...]:
    """The distribution function of ascending values, as a line from 0 to `last`."""
    found: list[Point] = [(0.0, 0.0)]
    for number, value in enumerate(values, 1):
        found += [(value, (number - 1) / of_all), (value, number / of_all)]
    return (*found, (float(last), found[-1][1]))


def in_floats(curve: Sequence[tuple[int, float]]) -> tuple[Point, ...]:
    return tuple((float(step), value) for step, value in curve)


def of(steps: Sequence[Step], last: int) -> tuple[Point, ...]:
    return tuple((float(step.metrics.step), step.metrics.values["vote/share_mean_frac"]) for step in steps if step.metrics.step <= last)


def panel(drawn: Sequence[tuple[Chart, int]], names: Sequence[str]) -> str:
    """Charts side by side with a legend under them."""
    width, height = charts.WIDTH * len(drawn), charts.HEIGHT + 44
    found = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"><style>{STYLE}</style>']
    found.append(f'<rect width="{width}" height="{height}" fill="#fff"/>')
    for at, (chart, last) in enumerate(drawn):
        found.append(f'<text x="{at * charts.WIDTH + charts.LEFT}" y="14">{escape(chart.title)}</text>')
        placed = f'<svg x="{at * charts.WIDTH}" y="20" width="{charts.WIDTH}" height="{charts.HEIGHT}" '
        found.append(charts.svg(chart, last).replace("<svg ", placed, 1))
    left = float(charts.LEFT)
    for name, colour in zip(names, COLOURS, strict=False):
        found.append(f'<rect x="{left:.0f}" y="{height - 18}" width="10" height="10" fill="{colour}"/>')
        found.append(f'<text x="{left + 14:.0f}" y="{height - 9}">{escape(name)}</text>')
        left += 34 + CHARACTER * len(name)
    return "".join(found) + "</svg>\n"


def write(svg: str, path: Path) -> list[Path]:
    """The SVG, and the PNG beside it where a Chromium is installed."""
    path.write_text(svg, "utf-8")
    browser = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if browser is None:
        return [path]
    target = path.with_suffix(".png")
    width, height = (int(svg.split(f'{side}="', 1)[1].split('"', 1)[0]) for side in ("width", "height"))
    page = path.with_suffix(".html")
    page.write_text(f"<body style='margin:0'>{svg}", "utf-8")
    options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--force-device-scale-factor={SCALE}", f"--window-size={width},{height}"]
    subprocess.run([browser, *options, f"--screenshot={target.resolve()}", page.resolve().as_uri()], check=True, capture_output=True, timeout=120)
    page.unlink()
    return [path, target]
