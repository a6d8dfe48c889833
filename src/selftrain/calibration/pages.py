"""A calibration -> calibration.md, calibration.html (nothing fetched), calibration.json, and the same tables for a terminal."""

from __future__ import annotations

import json
from dataclasses import dataclass

from markupsafe import Markup

from selftrain.calibration.evidence import EVIDENCE, NO_VIEW
from selftrain.calibration.figure import shares_svg
from selftrain.calibration.forecast import ORIGIN, Forecast
from selftrain.calibration.measuring import Calibration, Truth
from selftrain.ledger.objects import Place
from selftrain.ledger.storage import advice, make_folder, publish
from selftrain.report import words
from selftrain.report.render import environment

NOTHING_TRAINS = (
    "No forecast: none of the prompts that were asked would train, since their votes are undecided or unanimous, so the run can neither gain nor lose. "
    "Harder or easier prompts, another temperature or more votes would change that."
)
LINES = {
    "gain": "The forecast is a gain.",
    "loss": "The forecast is a loss: another source, a lower rate or fewer steps should be tried before this run.",
    "open": "The forecast is open: the evidence does not tell a gain from a loss.",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table as texts; the first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages and the terminal show. lead: sentences. tables: without labels. known: with the truth; no_truth: why there are none."""

    title: str
    lead: tuple[str, ...]
    tables: tuple[Table, ...]
    known: tuple[Table, ...]
    no_truth: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Pages:
    markdown: Place
    html: Place
    json: Place


def write_pages(folder: Place, found: Calibration) -> Pages:
    """Raises StorageError, RunFolderError."""
    shown = shown_of(found)
    drawn = Markup(shares_svg(found.shares, found.truth.quality.bins if found.truth else ()))  # it escapes its texts
    pages = Pages(*(folder / f"calibration.{kind}" for kind in ("md", "html", "json")))
    with advice("Name another folder with --folder, or let there be room in this one that you may write to."):
        make_folder(folder)
        publish(pages.markdown, environment(False).get_template("calibration.md.jinja").render(shown=shown).encode("utf-8", "replace"))
        publish(pages.html, environment(True).get_template("calibration.html.jinja").render(shown=shown, figure=drawn).encode("utf-8", "replace"))
        publish(pages.json, json.dumps(found.to_json(), indent=1).encode())
    return pages


def shown_of(found: Calibration) -> Shown:
    subject = found.subject
    channels = subject["truth_channels"]
    return Shown(
        title=f"{subject['model']} on {subject['prompts']['origin']}",
        lead=(
            f"{subject['num_prompts']:,} of {subject['prompts']['count']:,} training prompts, {subject['num_votes']} votes each at temperature "
            f"{subject['temperature']:g}, one greedy answer, and as many votes under a second wording where there is one.",
            *share_words(found),
            *forecast_words(found),
            *((f"Not label-free: the config's source uses the truth ({', '.join(channels)}), and so does this evidence.",) if channels else ()),
        ),
        tables=(evidence_table(found), *((forecast_table(found.forecast),) if found.has_forecast else ())),
        known=() if found.truth is None else (known_table(found.truth), calibration_table(found.truth), threshold_table(found.truth)),
        no_truth=found.no_truth,
        notes=(
            f"The forecast's coefficients: {ORIGIN}",
            "It is for this config as a whole. The rate counts by what one update, tried out and thrown away, did to the log-probabilities of its own samples; "
            "the source by how far its labels move with the policy.",
            "Intervals are 95 %, by bootstrap over prompts.",
        ),
    )


def share_words(found: Calibration) -> tuple[str, ...]:
    """A sentence where the prompts are no fair draw of all."""
    shares = ", ".join(f"step_share.{name} = {value:g}" for name, value in found.subject["step_share"].items())
    return (f"These prompts are drawn in the shares that a step of the run has ({shares}), and all that follows is of this draw.",) if shares else ()


def forecast_words(found: Calibration) -> tuple[str, ...]:
    subject, one = found.subject, found.forecast
    if not found.has_forecast:
        return (NOTHING_TRAINS,)
    run = f"labels.source = {subject['label_source']} at learning rate {subject['learning_rate']:g} for {subject['num_steps']} steps"
    strongest = max(one.parts, key=lambda part: abs(part.contribution))
    why = f" What weighs most: {strongest.name} ({'for' if strongest.contribution > 0 else 'against'} a gain)." if strongest.contribution else ""
    return (f"{LINES[one.verdict]} Chance of a gain {100 * one.gain_chance:.0f} % for {run}.{why}",)


def evidence_table(found: Calibration) -> Table:
    rows = tuple(
        (name, NO_VIEW if value is None and name == "view_frac" else shown_value(EVIDENCE[name].unit, value), EVIDENCE[name].meaning)
        for name, value in found.evidence.items()
    )
    return Table("Evidence, without labels", ("evidence", "value", "meaning"), rows)


def shown_value(unit: str, value: float | None) -> str:
    if value is None:
        return "-"
    return (
        f"{100 * value:.1f} %"
        if unit == "fraction"
        else f"{value:.1f} tokens"
        if unit == "tokens"
        else f"{value:+.3f}"
        if unit == "correlation"
        else f"{value:.3g} nats"
    )


def forecast_table(one: Forecast) -> Table:
    rows = tuple(
        (part.name, "not known" if part.value is None else f"{part.value:+.3f}", f"{part.coefficient:+.2f}", f"{part.contribution:+.2f}", part.meaning)
        for part in one.parts
    )
    return Table("The forecast's terms", ("term", "value", "coefficient", "contribution", "large when"), rows)


def known_table(truth: Truth) -> Table:
    one = truth.quality
    k = one.num_votes
    rows = [
        (f"avg@{k}", words.percent(one.avg)),
        *((f"maj@{size}", words.percent(value)) for size, value in one.maj_by_votes if size > 1),
        (f"pass@{k}", words.percent(one.any_right)),
        ("what the vote could teach at most (maj - avg)", f"{100 * (one.maj.value - one.avg.value):+.1f} points"),
        ("AUC of vote share against correctness of the winner", "-" if one.auc is None else str(one.auc)),
        ("expected calibration error", "-" if one.calibration_error_frac is None else f"{100 * one.calibration_error_frac:.1f} %"),
        ("labels of the config's source that are right, where it would train", words.percent(truth.label_accuracy)),
    ]
    return Table(f"Against {truth.judge}, {one.num_prompts:,} prompts", ("measure", "value"), tuple(rows))


def calibration_table(truth: Truth) -> Table:
    rows = tuple(
        (f"{one.low:g} to {one.high:g}", f"{one.num_prompts}", f"{100 * one.share_mean_frac:.1f} %", words.percent(one.accuracy)) for one in truth.quality.bins
    )
    return Table("Calibration: vote share and how often the winner is right", ("vote share", "prompts", "mean share", "winner right"), rows)


def threshold_table(truth: Truth) -> Table:
    rows = tuple((f"{one.min_share_frac:g}", f"{100 * one.decided_frac:.1f} %", words.percent(one.accuracy)) for one in truth.quality.thresholds)
    return Table("Pseudo-labels at a minimum share", ("labels.min_share_frac", "decided", "right of these"), rows)
