"""How fast accuracy is lost, and when glances at other steps would have seen it: accuracy, a glance and a whole probe after every one of a run's first steps.

    python benchmarks/guard_pace.py record --ways majority=2e-4 ema=1e-4 --seeds 28 29    # resumable, several may share the folder, one thread each
    python benchmarks/guard_pace.py record --folder runs/guard-pace-0 --steps 30 --warmup 0               # the same without a warm-up
    python benchmarks/guard_pace.py show                                                  # 5 points lost after so many steps; halted at, by schedule

On the tasks that may set limits, so no run that is judged is looked at.

A halt is that of the guard of this version, shown the recorded signals, with probes where they are due and where a glance calls for one.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Any

from guard_curves import step_of_loss
from guard_lab import Cell, bare, config_of, record_fit
from guard_measure import evaluation_params
from selftrain.compose import load_sets
from selftrain.config import GuardSection
from selftrain.evals import evaluate
from selftrain.guard import Guard
from selftrain.guard_stream import judged, step_of_run
from selftrain.probes import probing
from selftrain.probes.kept import fallen, lost
from selftrain.run import start
from selftrain.seeds import Stream
from selftrain.train import train
from selftrain.types import Action, PolicyVersion, StepMetrics

SAMPLES, LAST = 8, 1000
"""samples of a problem; no run is recorded for so many steps"""


def glances(every_steps: int) -> Collection[int]:
    """Where the product glances, with probes so far apart."""
    return frozenset(step for step in range(LAST) if probing.is_glance(step, every_steps))


SCHEDULES: Mapping[str, tuple[Collection[int], Sequence[int], int]] = {
    "1-4, every 4th, 24 or 48 prompts, probes at 20": (glances(20), (probing.FIRST_PROMPTS, probing.GLANCE_PROMPTS), 20),
    "1-4, every 4th, 16 or 48 prompts, probes at 20": (glances(20), (16, 48), 20),
    "1-4, every 4th, 48 prompts, probes at 20": (glances(20), (48,), 20),
    "1-4, every 5th, 48 prompts, probes at 25": (glances(25), (48,), 25),
    "1-4, every 5th, 32 prompts, probes at 25": (glances(25), (32,), 25),
    "every step, 48 prompts, probes at 20": (range(1, LAST), (48,), 20),
}
"""name -> (steps of glances, prompts of a glance, of which the next number is looked at unless the first ones say clearly that nothing has fallen, distance of
probes); the first one is the product's"""
Row = dict[str, Any]


@dataclass
class Glances:
    """How many were made, at how many prompts together, and how many called for a probe."""

    made: int = 0
    prompts: int = 0
    called: int = 0


def recorded(cell: Cell, folder: Path, num_steps: int, warmup_steps: int | None) -> list[Row]:
    """After so many steps, from 0 on: accuracy, what is kept and seen by prompt, a glance, the signals of a probe and of the step."""
    config = bare(config_of(cell, folder, warmup_steps))
    run, held_out = start(config), load_sets(config).held_out
    assert held_out is not None
    params = evaluation_params(config)

    def accuracy() -> float:
        found = evaluate(run.policy, held_out, params, SAMPLES, Stream(cell.seed).at(stream="dense eval"))
        return fmean(one.num_right / found.num_samples for one in found.results)

    rows: list[Row] = [{"accuracy": accuracy()}]
    prober = run.prober
    for report in train(run.parts(), 0):
        step = report.metrics.step
        rows[-1]["metrics"] = dict(report.metrics.values)
        if step == 0:
            rows[0] |= {"kept": dict(prober._best), "seen": dict(prober._seen)}
        assert prober._base is not None
        found = probing.probe(run.policy, prober._base, prober._probe_set, prober._how, None, probing.Place(step + 1))
        seen = probing.glance(run.policy, prober._base, prober._how.params.temperature)
        rows.append({"accuracy": accuracy(), "kept": dict(found.kept), "seen": dict(found.seen), "glance": seen, "probe": dict(found.values)})
        if step + 1 >= num_steps:
            break
    return rows


def seen_at(seen: Mapping[str, float], now: Mapping[str, float], sizes: Sequence[int], looks: Glances) -> bool:
    """Whether such a glance calls for a probe."""
    found, size = None, 0
    for size in sizes:
        found = fallen(seen, dict(islice(now.items(), size)))
        if found is not None and found.value < -probing.CLEAR_ERRORS * found.error:
            break
    called = found is not None and found.value > probing.CALLING_ERRORS * found.error
    looks.made, looks.prompts, looks.called = looks.made + 1, looks.prompts + min(size, len(now)), looks.called + called
    return called


def halted_at(rows: Sequence[Row], glances: Collection[int], sizes: Sequence[int], every: int, looks: Glances | None = None) -> int | None:
    """The step at which a guard would halt that is shown these glances and probes. looks: counts them."""
    guard, best, seen = Guard(GuardSection(action="halt")), rows[0]["kept"], rows[0]["seen"]
    for step, row in enumerate(rows[:-1]):
        values = {key: value for key, value in row["metrics"].items() if not key.startswith(("probe/", "glance/", "support/"))}
        is_asked = step % every == 0
        if not is_asked and step in glances:
            is_asked = seen_at(seen, row["glance"], sizes, looks or Glances())
        if is_asked and step == 0:
            values |= {key: value for key, value in row["metrics"].items() if key.startswith("probe/")}
        elif is_asked:
            values |= {key: value for key, value in row["probe"].items() if key.startswith("probe/")}
            if (gone := lost(best, row["kept"])) is not None:
                values |= {"probe/base_lost_frac": gone.value, "probe/base_lost_low_frac": gone.low}
            best, seen = probing.better(best, row["kept"]), row["seen"]
        if judged(guard, step_of_run(StepMetrics(step, PolicyVersion(0, step), values))).action is Action.HALT:
            return step
    return None


def show(folder: Path) -> None:
    print("run, accuracy after each step; 5 points are lost after; halted at,", "; ".join(SCHEDULES))
    counts = {name: Glances() for name in SCHEDULES}
    for path in sorted(folder.glob("*.json")):
        rows = json.loads(path.read_text("utf-8"))
        curve = [(step, row["accuracy"]) for step, row in enumerate(rows)]
        late = step_of_loss(curve)
        halts = [halted_at(rows, *schedule, counts[name]) for name, schedule in SCHEDULES.items()]
        print(f"{path.stem:40}", " ".join(f"{100 * value:.0f}" for _, value in curve), "|", "never" if late is None else f"{late:.1f}", "|", *halts)
    for name, one in counts.items():
        print(f"{name}: {one.made} glances at {one.prompts / max(1, one.made):.1f} prompts, {one.called} called for a probe")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "show"))
    parser.add_argument("--folder", type=Path, default=Path("runs/guard-pace"))
    parser.add_argument("--ways", nargs="+", default=["majority=2e-4"], metavar="SOURCE=RATE")
    parser.add_argument("--seeds", nargs="+", type=int, default=[28])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=None, help="update.warmup_steps; unset: the product's own. A folder of its own for each")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    if args.command == "show":
        show(args.folder)
        return
    record_fit(args.folder, args.ways, args.seeds, lambda cell, place: recorded(cell, place, args.steps, args.warmup))


if __name__ == "__main__":
    main()
