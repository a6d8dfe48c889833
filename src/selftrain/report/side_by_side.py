"""Several runs beside each other: what differs in their options, how each ended, and paired differences to the first, which serves as the control."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.compose import HELD_OUT_ANSWERS
from selftrain.evals import Evaluation, Interval
from selftrain.metrics import METRICS
from selftrain.report import words
from selftrain.report.charts import Chart, Series
from selftrain.report.comparison import differences, measures
from selftrain.report.cost import stage_seconds
from selftrain.report.limits import late_mean, limits_of
from selftrain.report.record import RunRecord
from selftrain.report.view import CURVES, curve, handed_step, measured

PLACE = ("run.name", "run.folder", "policy.num_threads")
SAME_PROBLEMS = "Differences are paired, problem by problem."
OTHER_PROBLEMS = "They were not evaluated on the same held-out problems, with the same true answers, so no differences between them are given."


@dataclass(frozen=True, slots=True)
class Comparison:
    """names: one per run, the first is the control. Each table: (row name, one cell per run)."""

    names: tuple[str, ...]
    ended: tuple[tuple[str, tuple[str, ...]], ...]
    outcome: tuple[tuple[str, tuple[str, ...]], ...]
    to_control: tuple[tuple[str, tuple[str, ...]], ...]
    to_control_words: str
    options: tuple[tuple[str, tuple[str, ...]], ...]
    charts: tuple[Chart, ...]
    last_step: int
    limits: tuple[str, ...]

    @property
    def title(self) -> str:
        return " and ".join((", ".join(self.names[:-1]), self.names[-1]))


def compare(records: Sequence[RunRecord]) -> Comparison:
    """Two runs or more. Runs with one name are told apart by their folders."""
    shared = len({record.name for record in records}) < len(records)
    names = tuple(str(record.folder) if shared else record.name for record in records)
    to_control = paired(records)
    return Comparison(
        names=names,
        ended=tuple((name, tuple(cell(record) for record in records)) for name, cell in ENDED.items()),
        outcome=outcome(records),
        to_control=to_control,
        to_control_words=SAME_PROBLEMS if to_control else OTHER_PROBLEMS,
        options=options(records),
        charts=charts(records, names),
        last_step=max(1, *(len(record.steps) for record in records)),
        limits=tuple(f"{name}: {sentence}" for name, record in zip(names, records, strict=True) for sentence in limits_of(record)),
    )


def late(key: str, digits: str) -> Callable[[RunRecord], str]:
    """Mean of a metric over the last steps, in words."""

    def cell(record: RunRecord) -> str:
        value = late_mean(record.steps, key)
        return "-" if value is None else format(value, digits)

    return cell


ENDED: Mapping[str, Callable[[RunRecord], str]] = {
    "status": words.status_words,
    "who decides": lambda record: str(record.config.labels.source),
    "label-free": lambda record: "yes" if record.label_free else f"no: {', '.join(record.header['truth_channels'])}",
    "guard": words.guard_and_rollbacks,
    "handed over": lambda record: record.handed_over if record.end_reason else "no end yet",
    "vote share, last steps": late("vote/share_mean_frac", ".3f"),
    "entropy, last steps (nats)": late("policy/entropy_mean_nats", ".3g"),
    "length, last steps (tokens)": late("completion/length_mean_tokens", ".4g"),
    "time of the steps": lambda record: words.duration(sum(seconds for _, seconds, _ in stage_seconds(record))),
    "head": lambda record: record.ledger.head[:16],
}


def outcome(records: Sequence[RunRecord]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Each measure before and after, and the paired difference of the two, in every run."""
    found: dict[str, list[str]] = {}

    def put(name: str, at: int, cell: str) -> None:
        found.setdefault(name, ["-"] * len(records))[at] = cell

    for at, record in enumerate(records):
        before, after = record.evaluation("before"), record.evaluation("after")
        for when, evaluation in (("before", before), ("after", after)):
            values: Mapping[str, Interval | None] = measures(evaluation) if evaluation else {}
            for name, value in values.items():
                put(f"{name} {when}", at, words.percent(value))
        for name, value in (differences(before, after) if before and after else {}).items():
            put(f"{name} after minus before", at, words.points(value))
    return tuple((name, tuple(cells)) for name, cells in found.items())


def paired(records: Sequence[RunRecord]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """What each run's model is better than that of the first, paired; empty where the first or all others cannot be compared."""
    control, answers = records[0].evaluation("after"), records[0].environment.get(HELD_OUT_ANSWERS)
    if control is None:
        return ()
    found: dict[str, list[str]] = {}
    for at, record in enumerate(records[1:], 1):
        others = record.environment.get(HELD_OUT_ANSWERS)
        is_comparable = None in (answers, others) or answers == others  # runs of earlier versions do not say
        after: Evaluation | None = record.evaluation("after") if is_comparable else None
        for name, value in (differences(control, after) if after else {}).items():
            found.setdefault(name, ["control", *["-"] * (len(records) - 1)])[at] = words.points(value)
    return tuple((name, tuple(cells)) for name, cells in found.items())


def options(records: Sequence[RunRecord]) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """Options in which the runs differ."""
    every: list[dict[str, Any]] = [
        {f"{section}.{name}": value for section, values in record.header["config"].items() for name, value in values.items()} for record in records
    ]
    names = dict.fromkeys(name for one in every for name in one if name not in PLACE)
    return tuple(
        (name, tuple("unset" if one.get(name) is None else str(one[name]) for one in every))
        for name in names
        if len({repr(one.get(name)) for one in every}) > 1
    )


def charts(records: Sequence[RunRecord], names: Sequence[str]) -> tuple[Chart, ...]:
    """One line per run in each chart."""
    made = []
    accuracy = tuple(
        Series(name, tuple(sorted((float(handed_step(record) if one.name == "after" else one.step), one.evaluation.avg.value) for one in record.evaluations)))
        for name, record in zip(names, records, strict=True)
        if record.evaluations
    )
    if accuracy:
        made.append(Chart("Accuracy on held-out problems, avg@k", "fraction", accuracy, (0.0, 1.0)))
    for title, lines in CURVES:
        for key, line in lines:
            series = tuple(Series(name, curve(record, key)) for name, record in zip(names, records, strict=True) if measured(record, key))
            if series:
                fits = key.endswith("_frac") and all(0 <= value <= 1 for one in series for _, value in one.points)
                made.append(Chart(title if len(lines) == 1 else f"{title}, {line}", METRICS[key].unit, series, (0.0, 1.0) if fits else None))
    return tuple(made)
