"""A recorded run and the same one with a guard that acts: what rolling back gains over halting at the same point.

Both have one seed and, on a CPU, the same bits until the guard acts. So the run that halts need not be made: it ends where the recorded run was at that
step, and hands over a checkpoint that was evaluated there. A run that rolls back is made (`record_pair`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from guard_curves import Shares, handed_over, points_of
from guard_lab import Cell, claimed, config_of, done, record
from guard_runs import Judged, LabRun, judged
from guard_tables import BASE_FRAC, BEST_FRAC
from selftrain.config import RunConfig
from selftrain.config_load import with_options
from selftrain.evals import resample
from selftrain.evals.bootstrap import Interval, mean_interval
from selftrain.ledger import read
from selftrain.remedies import GUARD, REMEDIES

WAYS = ("halt", *REMEDIES)
"""what the guard does on harm: halt, or roll back with this remedy"""


def pair_config(cell: Cell, folder: Path, way: str) -> RunConfig:
    """The run of a cell with a guard that acts, in `folder/way`."""
    acting = {"guard.action": "halt"} if way == "halt" else {"guard.action": "roll_back", "rollback.remedy": way}
    return with_options(config_of(cell, folder / way), acting)


def record_pair(cell: Cell, folder: Path, way: str) -> Path:
    """Make the run unless it is there or another process makes it; its folder."""
    config = pair_config(cell, folder, way)
    path = folder / way / cell.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with claimed(path.parent, cell.name) as mine:
        if mine and not done(path):
            record(config)
    return path


@dataclass(frozen=True)
class Pair:
    """One cell. halted: what halting hands over, and its steps. rolled: what the run that rolled back hands over in the end, and its steps.

    start, best: the model before the first step, and the best checkpoint of the run that nobody stopped.
    """

    cell: Cell
    step: int
    halted: tuple[int, Shares]
    rolled: tuple[int, Shares]
    num_rollbacks: int
    start: Shares
    best: Shares

    @property
    def gain(self) -> Interval:
        """Rolled back minus halted, avg@16, paired over problems."""
        return mean_interval([new - old for old, new in zip(self.halted[1], self.rolled[1], strict=True)])


def pair_of(run: LabRun, folder: Path) -> Pair | str:
    """The pair of a recorded run and one that rolled back; or why there is none."""
    found, ledger = judged(run), read(folder)
    acts = [one for one in ledger.branches if one.who == GUARD]
    if found.harmed is None or not acts:
        return f"the guard acted {len(acts)} times in it, and at step {found.harmed} of the recorded run"
    if acts[0].left_at != found.harmed + 1:
        return f"it was left after step {acts[0].left_at - 1}, and the guard of this version halts the recorded run at step {found.harmed}"
    points, steps = points_of(folder), handed_over(ledger)
    if found.handed_over not in run.points or steps not in points:
        return "what is handed over was not evaluated"
    halted = found.handed_over, run.points[found.handed_over]
    return Pair(run.cell, found.harmed, halted, (steps, points[steps]), len(acts), run.points[0], run.points[found.best])


def pairs_page(pairs: Sequence[Pair], left_out: Sequence[str], way: str) -> str:
    """As Markdown: each pair, and the mean gain with the bootstrap over cells and problems."""
    lines = [f"# Rolling back with `{way}` against halting at the same point, {len(pairs)} pairs", ""]
    lines += [
        "| run | harm at step | halted: hands over | avg@16 | rolled back: times | hands over | avg@16 | gain, points |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in pairs:
        (then, old), (now, new) = one.halted, one.rolled
        avgs = [f"{100 * sum(shares) / len(shares):.1f}" for shares in (old, new)]
        lines.append(f"| `{one.cell.name}` | {one.step} | step {then} | {avgs[0]} | {one.num_rollbacks} | step {now} | {avgs[1]} | {points(one.gain)} |")
    if pairs:
        means = resample({"halt": [one.halted[1] for one in pairs], "roll_back": [one.rolled[1] for one in pairs]}, same_problems=False)
        lines += [
            "",
            f"Mean gain, paired, 95 % interval of the bootstrap over cells and problems: {points(means['roll_back'].minus(means['halt']).interval)} points.",
            "",
            *(against(pairs, name) for name in ("halted", "rolled")),
        ]
    return "\n".join([*lines, *(["", "Left out:", "", *left_out] if left_out else [])]) + "\n"


def against(pairs: Sequence[Pair], name: str) -> str:
    """How many hand over a model near the best one, or one that is worse than the start; as a list item. name: `halted` or `rolled`."""
    handed = [(fmean(getattr(one, name)[1]), fmean(one.start), fmean(one.best)) for one in pairs]
    near = sum(now >= best - BEST_FRAC for now, _, best in handed)
    under = sum(now < start - BASE_FRAC for now, start, _ in handed)
    worst = min(now - start for now, start, _ in handed)
    of = f"of {len(pairs)}"
    best = f"{near} {of} within 3 points of the best checkpoint of the run that nobody stopped"
    return f"- {name}: {best}, {under} {of} more than 2 under the start (worst {100 * worst:+.1f})"


@dataclass(frozen=True)
class Ends:
    """Of a run, on fresh problems: the start, what the guard hands over, the checkpoint that was best on the problems of its evaluations."""

    start: Shares
    given: Shares
    best: Shares


def ends_of(one: Judged, fresh: Mapping[int, Shares]) -> Ends | None:
    """None where one of them was not measured."""
    places = (0, one.handed_over, one.best)
    return Ends(*(fresh[place] for place in places)) if set(places) <= fresh.keys() else None


def beside_page(ends: Mapping[str, tuple[Ends, Ends]], sources: Mapping[str, str]) -> str:
    """Runs of the same cells in two laboratories, paired: the first minus the second. sources: label source of each."""
    lines = [
        "| runs | number | handed over: first, second, over the start | first minus second | best checkpoint: first minus second |",
        "|---|---|---|---|---|",
    ]
    for name in ("all", *sorted(set(sources.values()))):
        pairs = [pair for cell, pair in ends.items() if name in ("all", sources[cell])]
        values = {(side, part): [getattr(pair[side], part) for pair in pairs] for side in (0, 1) for part in ("start", "given", "best")}
        means = resample(values, same_problems=False)
        gains = [points(means[side, "given"].minus(means[side, "start"]).interval) for side in (0, 1)]
        gaps = [points(means[0, part].minus(means[1, part]).interval) for part in ("given", "best")]
        lines.append(f"| {name} | {len(pairs)} | {', '.join(gains)} | {' | '.join(gaps)} |")
    return "\n".join(lines) + "\n"


def points(found: Interval) -> str:
    return f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
