"""The folder of a comparison -> its values: one row per run, and per start one row per source over all its seeds.

Everything is said of the newest checkpoint, which of a run that was not halted is the end of its budget; what the guard hands over instead stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from selftrain.comparing.controls import REFERENCE
from selftrain.comparing.measuring import base_of, end_of, end_step, measured
from selftrain.comparing.plan import Cell, known_cells
from selftrain.errors import RunFolderError
from selftrain.evals import AGAIN_MEASURES, Evaluation, Interval, Means, TrainingAccuracy, gained_and_lost, problem_values, resample
from selftrain.ledger.objects import Place
from selftrain.report import RunRecord, read_record
from selftrain.report.cost import all_steps, stage_seconds, tokens_in
from selftrain.report.record import NamedEvaluation
from selftrain.run_folder import is_there
from selftrain.types import StepMetrics

FORMAT_ONLY = "format_only"
ENDS_STEPS = 5
"""the first and last steps of a run over which its accuracies in training are averaged"""
MEASURES = ("avg", "maj", "confident_wrong")
POINTS = ("before", "best", "end", "handed")


@dataclass(frozen=True, slots=True)
class RunRow:
    """A finished run. points: evaluations by POINTS; `best` is the one with the highest avg@k of the held-out problems, so it is seen with labels.

    best_step: steps done then. training: step -> accuracy of its rewards and labels. gained, lost: problems whose vote turned right, or wrong.
    """

    cell: Cell
    record: RunRecord
    points: Mapping[str, Evaluation]
    best_step: int
    training: Mapping[int, TrainingAccuracy]
    gained: int
    lost: int

    @property
    def end_step(self) -> int:
        """Steps done at `end`: fewer than the run has where the guard halted it between two checkpoints."""
        return end_step(self.record)

    @property
    def gain(self) -> float:
        return self.points["end"].avg.value - self.points["before"].avg.value

    def metric(self, key: str) -> float | None:
        """Mean of a metric over all steps."""
        return mean(step.values.get(key) for step in self.record.steps)

    @property
    def tokens(self) -> float:
        """Tokens sampled in training, a teacher's and those of steps that rollbacks left behind included."""
        return tokens_in(all_steps(self.record))

    @property
    def seconds(self) -> float:
        return sum(seconds for _, seconds, _ in stage_seconds(self.record))

    def accuracy(self, value: Callable[[TrainingAccuracy], float | None], last: bool) -> float | None:
        """Mean of an accuracy over the first or last ENDS_STEPS steps that have one."""
        steps = sorted(self.training)
        return mean(value(self.training[step]) for step in (steps[-ENDS_STEPS:] if last else steps[:ENDS_STEPS]))


@dataclass(frozen=True, slots=True)
class SourceRow:
    """A source from one start, over its seeds. means: (measure, point) -> mean with what was resampled together with the other sources'.

    share: of the reference runs' gain in avg@k. over_format: gain in avg@k beyond the format-only control's. Both over the seeds that both have.
    """

    source: str
    runs: tuple[RunRow, ...]
    means: Mapping[tuple[str, str], Means]
    share: Interval | None
    over_format: Interval | None

    def at(self, measure: str, point: str) -> Interval:
        return self.means[measure, point].interval

    def gain(self, measure: str, point: str = "end") -> Interval:
        return self.means[measure, point].minus(self.means[measure, "before"]).interval

    @property
    def corrects(self) -> bool:
        """Whether its runs were evaluated with a second turn."""
        return ("turn2", "end") in self.means

    def over(self, measure: str, other: str, point: str) -> Interval:
        """One measure minus another at a point, paired."""
        return self.means[measure, point].minus(self.means[other, point]).interval

    @property
    def instead(self) -> tuple[str, ...]:
        """What an added control has instead of the shared options, in words."""
        return self.runs[0].cell.instead

    @property
    def label_free(self) -> bool:
        return all(run.record.label_free for run in self.runs)

    def mean(self, value: Callable[[RunRow], float | None]) -> float | None:
        return mean(map(value, self.runs))


@dataclass(frozen=True, slots=True)
class StartTable:
    """All sources from one start. base: the start at other temperatures, by name, one evaluation per seed."""

    start: str
    rows: tuple[SourceRow, ...]
    base: Mapping[str, tuple[Evaluation, ...]]

    @property
    def num_samples(self) -> int:
        return self.rows[0].runs[0].points["end"].num_samples


@dataclass(frozen=True, slots=True)
class Table:
    """missing: cells that have no end yet and are not in the table."""

    folder: Place
    starts: tuple[StartTable, ...]
    missing: tuple[Cell, ...]


def read_table(folder: Place) -> Table:
    """The table of a comparison's folder; sources in the order in which they were named. Raises RunFolderError when no run in it is finished."""
    cells = known_cells(folder)
    runs = {cell: row for cell in cells if (row := run_row(folder, cell)) is not None}
    if not runs:
        raise RunFolderError(f"comparison {folder}", "no run in it is finished yet", "Go on with it: the same command again.")
    starts = [start_table(folder, start, [row for row in runs.values() if row.cell.start == start]) for start in dict.fromkeys(cell.start for cell in runs)]
    return Table(folder, tuple(starts), tuple(cell for cell in cells if cell not in runs))


def run_row(folder: Place, cell: Cell) -> RunRow | None:
    """A finished and measured run; None where it is not."""
    if not is_there(folder / cell.name):
        return None
    record = read_record(folder / cell.name)
    found = measured(folder, record) if record.end_reason is not None else None
    before, handed = record.evaluation("before"), record.evaluation("after")
    if found is None or before is None or handed is None:
        return None
    end = found.end or end_of(record)
    assert end is not None
    seen = [*record.evaluations, NamedEvaluation("end", end_step(record), end)]
    best = max(seen, key=lambda one: one.evaluation.avg.value)
    moved = gained_and_lost(before, end)
    points = {"before": before, "best": best.evaluation, "end": end, "handed": handed}
    return RunRow(cell, record, points, best.step, found.training, len(moved.gained), len(moved.lost))


def start_table(folder: Place, start: str, runs: Sequence[RunRow]) -> StartTable:
    by_source = {source: {run.cell.seed: run for run in runs if run.cell.source == source} for source in dict.fromkeys(run.cell.source for run in runs)}
    every = Resampled(by_source)
    rows = []
    for source, of_seed in by_source.items():
        seeds = tuple(of_seed)
        shares = {}
        for other in (REFERENCE, FORMAT_ONLY):
            both = tuple(seed for seed in seeds if seed in by_source.get(other, {}))
            shares[other] = (every[both][source], every[both][other]) if both and other != source else None
        reference, control = shares[REFERENCE], shares[FORMAT_ONLY]
        rows.append(
            SourceRow(
                source,
                tuple(of_seed.values()),
                every[seeds][source],
                gain(reference[0]).share_of(gain(reference[1])) if reference else None,
                gain(control[0]).minus(gain(control[1])).interval if control else None,
            )
        )
    found = {run.cell.seed: base_of(folder, run.cell, run.record) for run in runs}
    names = dict.fromkeys(name for one in found.values() if one for name in one)
    return StartTable(start, tuple(rows), {name: tuple(one[name] for one in found.values() if one and name in one) for name in names})


def gain(means: Mapping[tuple[str, str], Means]) -> Means:
    return means["avg", "end"].minus(means["avg", "before"])


class Resampled(dict[tuple[int, ...], dict[str, dict[tuple[str, str], Means]]]):
    """Seeds -> source -> the means of its runs with these seeds. What has the same seeds is resampled together, once."""

    def __init__(self, by_source: Mapping[str, Mapping[int, RunRow]]) -> None:
        super().__init__()
        self._by_source = by_source

    def __missing__(self, seeds: tuple[int, ...]) -> dict[str, dict[tuple[str, str], Means]]:
        complete = {source: [of_seed[seed] for seed in seeds] for source, of_seed in self._by_source.items() if set(seeds) <= of_seed.keys()}
        values = {
            (source, measure, point): [problem_values(run.points[point], measure) for run in runs]
            for source, runs in complete.items()
            for measure in (*MEASURES, *(AGAIN_MEASURES if all(run.points[point].again for run in runs for point in POINTS) else ()))
            for point in POINTS
        }
        first = next(iter(complete.values()))
        means = resample(values, same_problems=len({run.points["end"].prompts_sha256 for run in first}) == 1)
        self[seeds] = {source: {key[1:]: one for key, one in means.items() if key[0] == source} for source in complete}
        return self[seeds]


def mean(values: Iterable[float | None]) -> float | None:
    """The mean of those that are there."""
    there = [value for value in values if value is not None]
    return fmean(there) if there else None


def curve(runs: Sequence[RunRow], value: Callable[[StepMetrics], float | None]) -> tuple[tuple[float, float], ...]:
    """(step, mean over runs) of something that each step has."""
    at: dict[int, list[float]] = {}
    for run in runs:
        for step in run.record.steps:
            if (found := value(step)) is not None:
                at.setdefault(step.step, []).append(found)
    return tuple((float(step), fmean(found)) for step, found in sorted(at.items()))
