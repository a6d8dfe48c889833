"""What closer and more frequent looks at the support would see of a fast collapse: accuracy and 8 completions of each held-aside prompt at every second step.

    python benchmarks/guard_looks.py record --ways majority=2e-4 majority=1e-4 ema=1e-4 --seeds 30    # resumable, several may share the folder
    python benchmarks/guard_looks.py show    # halted at, by how often and how closely is looked; a rule about what is lost since the best look

On the tasks that may set limits, so no run that is judged is looked at. The product looks once at each prompt, at steps 10, 20 and the last of 30.

A halt is that of the guard of this version, shown the recorded signals and these looks. Found in time is a halt before 5 points are lost from the peak so far;
healthy is a run that never loses 4 in these evaluations (128 problems, 8 samples each).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from guard_curves import in_time, losses, step_of_loss
from guard_lab import Cell, bare, config_of, record_fit
from guard_measure import evaluation_params
from selftrain.compose import load_sets
from selftrain.config import GuardSection
from selftrain.evals import evaluate
from selftrain.guard import Guard
from selftrain.guard_stream import judged, step_of_run
from selftrain.probes import probing
from selftrain.probes.base import vote_of
from selftrain.probes.probe_set import Kind
from selftrain.probes.signals import of_kind, self_agreement
from selftrain.run import start
from selftrain.seeds import Stream
from selftrain.train import train
from selftrain.types import Action, PolicyVersion, StepMetrics

PROBLEMS, SAMPLES, FIRST, EVERY = 128, 8, 4, 2
HEALTHY_FRAC, SURE_ERRORS, LEAST_ERROR = 0.04, 1.645, 0.005
Row = dict[str, Any]
DESIGNS: dict[str, tuple[Collection[int], int]] = {
    "as it is": ((), 1),
    "every 4th step, 1 of each": (range(8, 99, 4), 1),
    "every 4th step, 4 of each": (range(8, 99, 4), 4),
    "every 4th step, 8 of each": (range(8, 99, 4), 8),
    "every 2nd step, 8 of each": (range(4, 99, 2), 8),
}
"""name -> (steps of further looks, completions of a prompt)"""


def recorded(cell: Cell, folder: Path, num_steps: int) -> list[Row]:
    """After so many steps, from 0 on: the right samples of each problem, the answers to the held-aside prompts, and the signals of the step."""
    config = bare(config_of(cell, folder))
    run, held_out = start(config), load_sets(config).held_out
    assert held_out is not None
    held_out, params, prober = replace(held_out, prompts=held_out.prompts[:PROBLEMS]), evaluation_params(config), run.prober

    def right() -> list[int]:
        return [one.num_right for one in evaluate(run.policy, held_out, params, SAMPLES, Stream(cell.seed).at(stream="dense eval")).results]

    def answers() -> dict[str, list[str]]:
        assert prober._base is not None
        how = replace(prober._how, num_votes=2 * SAMPLES)  # of this kind half as many are drawn
        asked = [replace(one, kind=Kind.SUPPORT) for one in prober._probe_set.of_kind(Kind.OWN) if one.of in set(list(prober._base.votes)[:96])]
        return {
            of: [str(key) for key in one.answers.keys] for of, one in of_kind(probing._asked(run.policy, asked, how, probing.Place()), Kind.SUPPORT).items()
        }

    rows: list[Row] = [{"right": right()}]
    for report in train(run.parts(), 0):
        rows[-1]["metrics"] = dict(report.metrics.values)
        done = report.metrics.step + 1
        if done == 1:
            assert prober._base is not None
            rows[0]["base"] = {of: [vote.num_votes, vote.num_read, list(vote.counts)] for of, vote in list(prober._base.votes.items())[:96]}
        rows.append({"right": right(), "answers": answers()} if done >= FIRST and done % EVERY == 0 else {})
        if done >= num_steps:
            break
    return rows


def supports(rows: Sequence[Row], step: int, each: int) -> list[float]:
    """By held-aside prompt, the share of the start's votes that an answer has."""
    found = []
    for of, (num_votes, _, counts) in rows[0]["base"].items():
        own = dict(map(tuple, counts))
        found.append(fmean(own.get(key, 0) / num_votes for key in rows[step]["answers"][of][:each]))
    return found


def halted_at(rows: Sequence[Row], steps: Collection[int], each: int) -> int | None:
    """The step at which the guard would halt that is shown these looks as well."""
    guard = Guard(GuardSection(action="halt"))
    first = [self_agreement(vote_of(*vote)) for vote in rows[0]["base"].values()]
    for step, row in enumerate(rows[:-1]):
        values = dict(row["metrics"])
        if step in steps and "answers" in row:
            now = supports(rows, step, each)
            error = stdev(one - other for one, other in zip(now, first, strict=True)) / math.sqrt(len(now))
            values |= {"support/base_share_frac": fmean(now), "support/error_frac": error}
        if judged(guard, step_of_run(StepMetrics(step, PolicyVersion(0, step), values))).action is Action.HALT:
            return step
    return None


def turned_at(rows: Sequence[Row], steps: Collection[int], each: int) -> int | None:
    """Where support is surely less than at the best look so far: a rule that the product does not have."""
    best: list[float] | None = None
    for step, row in enumerate(rows):
        if step in steps and "answers" in row:
            now = supports(rows, step, each)
            if best is None or fmean(now) > fmean(best):
                best = now
                continue
            lost = [one - other for one, other in zip(best, now, strict=True)]
            if fmean(lost) > SURE_ERRORS * max(LEAST_ERROR, stdev(lost) / math.sqrt(len(lost))):
                return step
    return None


def show(folder: Path) -> None:
    rules = {
        **{name: (halted_at, *design) for name, design in DESIGNS.items()},
        **{f"less than at the best: {n}": (turned_at, *d) for n, d in DESIGNS.items() if d[0]},
    }
    counts = {name: [0, 0] for name in rules}
    late = healthy = 0
    for path in sorted(folder.glob("*.json")):
        rows = json.loads(path.read_text("utf-8"))
        curve = [(step, fmean(row["right"]) / SAMPLES) for step, row in enumerate(rows) if "right" in row]
        lost, is_healthy = step_of_loss(curve), max(losses(curve)) < HEALTHY_FRAC
        found = {name: rule(rows, steps, each) for name, (rule, steps, each) in rules.items()}
        late, healthy = late + (lost is not None), healthy + is_healthy
        for name, step in found.items():
            counts[name][0] += lost is not None and in_time(curve, step)
            counts[name][1] += is_healthy and step is not None
        line = " ".join(f"{100 * value:.0f}" for _, value in curve)
        print(f"{path.stem:40} {line} | {'never' if lost is None else f'{lost:.1f}'} |", *found.values())
    for name, (seen, disturbed) in counts.items():
        print(f"{name:50} in time {seen} of {late}, healthy halted {disturbed} of {healthy}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "show"))
    parser.add_argument("--folder", type=Path, default=Path("runs/guard-looks"))
    parser.add_argument("--ways", nargs="+", default=["majority=2e-4"], metavar="SOURCE=RATE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[30])
    parser.add_argument("--steps", type=int, default=34)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.command == "show":
        show(args.folder)
        return
    record_fit(args.folder, args.ways, args.seeds, lambda cell, place: recorded(cell, place, args.steps))


if __name__ == "__main__":
    main()
