"""View -> HTML and Markdown. Completions are untrusted text: HTML is escaped, Markdown puts them in fences they cannot close."""

from __future__ import annotations

import re
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from selftrain.report import charts, words
from selftrain.report.side_by_side import Comparison
from selftrain.report.view import View

CONTROL = {code: 0x2400 + code for code in range(32) if code not in (9, 10)} | {127: 0x2421}
"""Control characters are shown as their pictures."""


@cache
def environment(autoescape: bool) -> Environment:
    made = Environment(
        loader=PackageLoader("selftrain.report", "."),
        autoescape=autoescape,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    made.filters.update(visible=visible, fence=fence, code=code, cell=cell, share=share)
    made.filters.update(percent=words.percent, points=words.points, duration=words.duration, count=words.count, energy=words.energy)
    made.filters.update(plain=lambda name: name.replace("_", " "))
    return made


def html(view: View) -> str:
    """One page with everything in it: no script, nothing fetched."""
    drawn = [Markup(charts.svg(chart, view.last_step)) for chart in view.charts]  # svg() escapes its texts
    strip = Markup(charts.timeline_svg(view.timeline, view.last_step))
    return environment(True).get_template("report.html.jinja").render(view=view, charts=list(zip(view.charts, drawn, strict=True)), strip=strip)


def markdown(view: View) -> str:
    return environment(False).get_template("report.md.jinja").render(view=view, curve_rows=curve_rows(view))


def comparison_html(view: Comparison) -> str:
    drawn = [(chart, Markup(charts.svg(chart, view.last_step))) for chart in view.charts]
    return environment(True).get_template("comparison.html.jinja").render(view=view, charts=drawn)


def comparison_markdown(view: Comparison) -> str:
    return environment(False).get_template("comparison.md.jinja").render(view=view)


def curve_rows(view: View) -> list[tuple[str, str, list[str]]]:
    """(title, unit, values) of each curve at up to six steps: Markdown has no curves."""
    found = []
    for chart in view.charts:
        for series in chart.series:
            chosen = charts.picked(series.points, 6)
            if chosen:
                title = series.name if len(chart.series) == 1 else f"{chart.title}, {series.name}"
                found.append((title, chart.unit, [f"{value:.3g} (step {step:g})" for step, value in chosen]))
    return found


def visible(text: str) -> str:
    return text.translate(CONTROL)


def fence(text: str) -> str:
    """A code block longer than any run of backticks in the text."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return f"{ticks}text\n{visible(text)}\n{ticks}"


def code(text: object) -> str:
    """Inline code of any text, also in a table cell."""
    shown = visible(str(text)).replace("\n", " ").replace("|", "\\|")
    ticks = "`" * (1 + max((len(run) for run in re.findall(r"`+", shown)), default=0))
    pad = " " if "`" in shown or not shown.strip() else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def cell(text: object) -> str:
    """Plain text of a table cell: nothing in it is markup."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", visible(str(text)).replace("\n", " "))


def share(value: float) -> str:
    return f"{100 * value:.1f} %"
