"""The values of a comparison -> comparison.md, comparison.html (tables and curves, nothing fetched), comparison.csv (a row per run), comparison.json."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from markupsafe import Markup

from selftrain.comparing.controls import control_words
from selftrain.comparing.figure import Forest, charts_of, forest_svg
from selftrain.comparing.plan import AGAIN
from selftrain.comparing.table import POINTS, RunRow, SourceRow, StartTable, Table, mean, read_table
from selftrain.evals import Evaluation, Interval, SecondTurnSummary, TrainingAccuracy
from selftrain.ledger.objects import Place
from selftrain.ledger.storage import advice, publish
from selftrain.remedies import by_guard
from selftrain.report import charts, words
from selftrain.report.render import environment

SEEN = "best (seen with labels)"
NOTES = (
    "Intervals are 95 %, by paired bootstrap over problems and seeds; with one seed over its problems alone, which says nothing about other seeds.",
    "End: the last weights of the run's budget, or the newest checkpoint before the guard halted it. Handed over: the checkpoint that a user is given.",
    "Best: the highest avg@k among the run's evaluations, chosen by the held-out problems' true answers; no run could have chosen it.",
    "Proxy accuracy is the share of completions whose reward says what the true answer would say, pseudo-label accuracy the share of decided labels that "
    "are right; found out after the run, over the first and the last 5 steps.",
    "Base greedy and at a low temperature stand above each table, because avg@k at T = 1 also rises by mere sharpening.",
)


@dataclass(frozen=True, slots=True)
class Pages:
    """Where the files are, and what they show, for a terminal. missing: a sentence on runs without an end, where there are some."""

    markdown: Place
    html: Place
    csv: Place
    json: Place
    starts: tuple[ShownStart, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Grid:
    """A table as texts."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class ShownStart:
    """base: a sentence on the start. grids: the tables, the summary first."""

    start: str
    base: str
    grids: tuple[Grid, ...]


def write_pages(folder: Place) -> Pages:
    """Read the runs of a comparison and write its pages. Raises RunFolderError when none is finished, LedgerError, StorageError."""
    table = read_table(folder)
    shown = tuple(shown_start(one) for one in table.starts)
    missing = (f"Not finished yet and left out: {', '.join(cell.name for cell in table.missing)}.",) if table.missing else ()
    controls = control_words((row.source, row.instead) for one in table.starts for row in one.rows)
    notes = (*NOTES, *([controls] if controls else []), *missing)
    markdown, html, csv_file, json_file = (folder / f"comparison.{kind}" for kind in ("md", "html", "csv", "json"))
    pages = Pages(markdown, html, csv_file, json_file, shown, notes, missing)
    drawn = [
        (start, Markup(forest_svg(Forest.of(one))), [(chart, Markup(charts.svg(chart, one_last(one)))) for chart in charts_of(one)])  # both escape their texts
        for one, start in zip(table.starts, shown, strict=True)
    ]
    names = [[row.source for row in one.rows] for one in table.starts]
    page = environment(True).get_template("sources.html.jinja").render(starts=list(zip(drawn, names, strict=True)), notes=notes, title=folder.name)
    with advice(AGAIN):
        publish(pages.markdown, environment(False).get_template("sources.md.jinja").render(starts=shown, notes=notes).encode("utf-8", "replace"))
        publish(pages.html, page.encode("utf-8", "replace"))
        publish(pages.csv, as_csv(table).encode())
        publish(pages.json, json.dumps(as_json(table), indent=1).encode())
    return pages


def one_last(table: StartTable) -> int:
    """The number of steps of the longest run."""
    return max(1, *(len(run.record.steps) for row in table.rows for run in row.runs))


def shown_start(table: StartTable) -> ShownStart:
    k = table.num_samples
    return ShownStart(
        table.start,
        base_words(table),
        (
            grid("Summary: means over seeds, percent [95 % interval]; gains in points", summary_columns(k), table.rows),
            grid("Accuracy on held-out problems", accuracy_columns(k), table.rows),
            grid("Gain, and at what price", gain_columns(k), table.rows),
            *([grid("Second turn", second_turn_columns(k), corrected)] if (corrected := [row for row in table.rows if row.corrects]) else []),
            grid("Labels and groups in training", TRAINING, table.rows),
            grid("Each run", run_columns(k), [run for row in table.rows for run in row.runs]),
        ),
    )


def grid(title: str, columns: Mapping[str, Callable[[Any], str]], rows: Sequence[Any]) -> Grid:
    return Grid(title, tuple(columns), tuple(tuple(cell(row) for cell in columns.values()) for row in rows))


def base_words(table: StartTable) -> str:
    """The start at the other temperatures, in a sentence; the mean over seeds where these have their own problems."""
    said = []
    for name, found in table.base.items():
        k = found[0].num_samples
        average = sum(one.avg.value for one in found) / len(found)
        majority = sum(one.maj.value for one in found) / len(found)
        said.append(f"{name} {share(average)}" if k == 1 else f"{name} avg@{k} {share(average)}, maj@{k} {share(majority)}")
    return f"The start: {'; '.join(said)}." if said else ""


def share(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"


def points(interval: Interval | None) -> str:
    """As `words.points`, without the word: the columns name the unit."""
    return words.points(interval).replace(" points", "")


Source = Callable[[SourceRow], str]


def summary_columns(k: int) -> dict[str, Source]:
    """What fits a terminal."""
    return {
        "who decides": lambda row: row.source,
        "seeds": lambda row: str(len(row.runs)),
        f"avg@{k}": lambda row: f"{share(row.at('avg', 'before').value)} -> {share(row.at('avg', 'end').value)}".replace(" %", ""),
        "gain": lambda row: points(row.gain("avg")),
        "share of reference's": lambda row: words.percent(row.share).replace(" %", ""),
        f"maj@{k}": lambda row: f"{share(row.at('maj', 'before').value)} -> {share(row.at('maj', 'end').value)}".replace(" %", ""),
        "groups train": lambda row: share(row.mean(lambda run: run.metric("admission/admitted_frac"))),
    }


def accuracy_columns(k: int) -> dict[str, Source]:
    names = {"before": "before", "best": SEEN, "end": "end", "handed": "handed over"}
    columns: dict[str, Source] = {"who decides": lambda row: row.source, "label-free": lambda row: "yes" if row.label_free else "no"}
    columns["seeds"] = lambda row: str(len(row.runs))
    for measure in ("avg", "maj"):
        columns |= {f"{measure}@{k} {names[point]}": lambda row, at=(measure, point): words.percent(row.at(*at)) for point in POINTS}  # type: ignore[misc]
    return columns


def gain_columns(k: int) -> dict[str, Source]:
    return {
        "who decides": lambda row: row.source,
        f"gain in avg@{k}, points": lambda row: points(row.gain("avg")),
        "worst seed": lambda row: f"{100 * min(run.gain for run in row.runs):+.1f}",
        "handed over": lambda row: points(row.gain("avg", "handed")),
        f"gain in maj@{k}, points": lambda row: points(row.gain("maj")),
        "share of the reference's gain": lambda row: words.percent(row.share),
        "gain over format_only, points": lambda row: points(row.over_format),
        "problems gained / lost a run": lambda row: f"{row.mean(lambda run: run.gained):.0f} / {row.mean(lambda run: run.lost):.0f}",
        "confident and wrong": lambda row: f"{share(row.at('confident_wrong', 'before').value)} -> {words.percent(row.at('confident_wrong', 'end'))}",
    }


def second_turn_columns(k: int) -> dict[str, Source]:
    """Each completion corrected once, before training and at its end, against sampling again."""

    def gains(row: SourceRow, measure: str, other: str) -> str:
        return f"{points(row.over(measure, other, 'before'))} -> {points(row.over(measure, other, 'end'))}"

    def part(row: SourceRow, value: Callable[[SecondTurnSummary], Interval | None], point: str) -> str:
        found = [value(second) for run in row.runs if (second := run.points[point].second_turn)]
        return share(mean(None if one is None else one.value for one in found))

    return {
        "who decides": lambda row: row.source,
        f"turn 2 avg@{k} before": lambda row: words.percent(row.at("turn2", "before")),
        f"turn 2 avg@{k} end": lambda row: words.percent(row.at("turn2", "end")),
        "over sampling again, points": lambda row: gains(row, "turn2", "avg"),
        f"maj@{k}, half of it corrected, over plain, points": lambda row: gains(row, "maj_pairs", "maj_again"),
        "wrong ones mended": lambda row: " -> ".join(part(row, lambda one: one.mended, point) for point in ("before", "end")),
        "right ones broken": lambda row: " -> ".join(part(row, lambda one: one.broken, point) for point in ("before", "end")),
        "tokens of a completion / correction at the end": lambda row: (
            f"{mean(run.points['end'].tokens_mean for run in row.runs):.1f} / "
            f"{mean(second.tokens_mean for run in row.runs if (second := run.points['end'].second_turn)):.1f}"
        ),
    }


def first_to_last(value: Callable[[TrainingAccuracy], float | None]) -> Source:
    return lambda row: f"{share(row.mean(lambda run: run.accuracy(value, False)))} -> {share(row.mean(lambda run: run.accuracy(value, True)))}"


TRAINING: Mapping[str, Source] = {
    "who decides": lambda row: row.source,
    "groups that train": lambda row: share(row.mean(lambda run: run.metric("admission/admitted_frac"))),
    "proxy accuracy": first_to_last(lambda one: one.proxy_accuracy_frac),
    "pseudo-label accuracy": first_to_last(lambda one: one.label_accuracy_frac),
    "halted by the guard": lambda row: f"{sum(run.record.end_reason == 'halted' for run in row.runs)} of {len(row.runs)}",
    "rolled back by the guard": lambda row: f"{sum(by_guard(run.record.ledger.branches) > 0 for run in row.runs)} of {len(row.runs)}",
    "tokens sampled a run": lambda row: words.count(round(row.mean(lambda run: run.tokens) or 0)),
    "time of the steps a run": lambda row: words.duration(row.mean(lambda run: run.seconds) or 0.0),
}


def run_columns(k: int) -> dict[str, Callable[[RunRow], str]]:
    return {
        "run": lambda run: run.cell.name,
        f"avg@{k} before": lambda run: words.percent(run.points["before"].avg),
        SEEN: lambda run: f"{share(run.points['best'].avg.value)} (step {run.best_step})",
        "end": lambda run: f"{words.percent(run.points['end'].avg)} (step {run.end_step})",
        "handed over": lambda run: f"{share(run.points['handed'].avg.value)} ({run.record.handed_over})",
        f"maj@{k} before -> end": lambda run: f"{share(run.points['before'].maj.value)} -> {share(run.points['end'].maj.value)}",
        "gained / lost": lambda run: f"{run.gained} / {run.lost}",
        "guard": lambda run: words.guard_and_rollbacks(run.record),
    }


def as_csv(table: Table) -> str:
    """A row per run; fractions in [0, 1]."""
    rows = [run_values(run) for start in table.starts for row in start.rows for run in row.runs]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def run_values(run: RunRow) -> dict[str, Any]:
    values: dict[str, Any] = {"run": run.cell.name, "source": run.cell.source, "start": run.cell.start, "seed": run.cell.seed}
    values |= {"label_free": run.record.label_free, "end_reason": run.record.end_reason, "num_rollbacks": len(run.record.ledger.branches)}
    values |= {"steps": len(run.record.steps), "handed_over": run.record.handed_over}
    for point in POINTS:
        one = run.points[point]
        second = one.second_turn
        values |= {f"avg_{point}": one.avg.value, f"maj_{point}": one.maj.value, f"confident_wrong_{point}": one.confident_wrong_frac.value}
        values |= {f"turn2_{point}": second and second.turn2.value, f"turn2_maj_{point}": second and second.maj_pairs.value}
    values |= {"best_step": run.best_step, "gained": run.gained, "lost": run.lost, "admitted_mean_frac": run.metric("admission/admitted_frac")}
    for when, last in (("first", False), ("last", True)):
        values[f"proxy_accuracy_{when}"] = run.accuracy(lambda one: one.proxy_accuracy_frac, last)
        values[f"label_accuracy_{when}"] = run.accuracy(lambda one: one.label_accuracy_frac, last)
    return values | {"sampled_tokens": run.tokens, "seconds": run.seconds, "head": run.record.ledger.head}


def as_json(table: Table) -> dict[str, Any]:
    """All values with their intervals; fractions in [0, 1]."""

    def measured(one: Evaluation) -> dict[str, Any]:
        return {"avg": asdict(one.avg), "maj": asdict(one.maj), "num_samples": one.num_samples}

    def source(row: SourceRow) -> dict[str, Any]:
        return {
            "source": row.source,
            "label_free": row.label_free,
            "instead": list(row.instead),
            "seeds": [run.cell.seed for run in row.runs],
            **{measure: {point: asdict(row.at(measure, point)) for point in POINTS} for measure in ("avg", "maj", "confident_wrong")},
            "gain": {measure: {point: asdict(row.gain(measure, point)) for point in ("end", "handed")} for measure in ("avg", "maj")},
            "share_of_reference_gain": row.share and asdict(row.share),
            "gain_over_format_only": row.over_format and asdict(row.over_format),
            "second_turn": second_turn_values(row),
            "runs": [
                {**run_values(run), "training": {step: asdict(one) for step, one in run.training.items()}, "curve": evaluated_curve(run)} for run in row.runs
            ],
        }

    return {
        "starts": [
            {
                "start": one.start,
                "base": {name: [measured(found) for found in of_seed] for name, of_seed in one.base.items()},
                "sources": list(map(source, one.rows)),
            }
            for one in table.starts
        ],
        "missing": [cell.name for cell in table.missing],
    }


def second_turn_values(row: SourceRow) -> dict[str, Any] | None:
    """What a second turn is worth by point; None without one."""
    if not row.corrects:
        return None
    compared = {"avg": ("turn2", "avg"), "maj": ("maj_pairs", "maj_again")}
    return {
        point: {name: {"after": asdict(row.at(new, point)), "over_sampling_again": asdict(row.over(new, old, point))} for name, (new, old) in compared.items()}
        for point in POINTS
    }


def evaluated_curve(run: RunRow) -> list[dict[str, Any]]:
    """The run's evaluations in order of steps."""
    return [{"name": one.name, "step": one.step, "avg": one.evaluation.avg.value, "maj": one.evaluation.maj.value} for one in run.record.evaluations]
