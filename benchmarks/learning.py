"""The learning result of the README: the default run without labels and the plain vote against the same run with true answers, and a format-only control.

    python benchmarks/learning.py [--seeds 0 1 2] [--problems 1000] [--folder runs/learning]

Protocol: one learning rate for all (the default recipe's); training prompts and held-out problems are disjoint; every evaluation draws from the same
streams, so that differences are paired; 95 % intervals by bootstrap over problems; the gain is averaged over seeds and its spread is shown. The base
is also shown greedy and at a low temperature, because avg@k at T = 1 rises by mere sharpening. The control rewards every readable answer.
Finished runs in the folder are not repeated. About 25 minutes on 2 idle cores without `ema`, which samples twice as much.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.evals import Evaluation, evaluate, gained_and_lost, paired_difference
from selftrain.ledger import read
from selftrain.measured import recorded_evaluations
from selftrain.policies.base import SamplingParams
from selftrain.run import Outcome, resume, start
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import Label, VotedGroup

sys.path.insert(0, str(Path(__file__).parent))  # so that the control below can be named in a config

SOURCES = {
    "ema": {"labels.source": "ema"},
    "majority": {"labels.source": "majority"},
    "reference": {"labels.source": "reference"},
    "format only": {"labels.source": "majority", "reward.rule": "learning:format_only"},
}


def format_only(voted: VotedGroup, label: Label, index: int) -> float:  # noqa: ARG001
    """A reward rule: 1 for any readable answer. What it gains is not due to the vote."""
    return 1.0


def config_of(args: argparse.Namespace, source: str, seed: int) -> RunConfig:
    name = f"{source.replace(' ', '-')}-{seed}"
    options = {"run.folder": args.folder, "run.name": name, "run.seed": seed, "evals.num_problems": args.problems, "guard.action": "warn"}
    return load_config(args.config, {**options, **SOURCES[source]})


def run_one(config: RunConfig) -> dict[str, Evaluation]:
    """The evaluations before and after, from the folder if the run is there."""
    folder = Path(config.run.folder) / str(config.run.name)
    if not folder.exists() or not read(folder).finished:
        run = resume(folder) if folder.exists() else start(config)
        for event in run.events():
            if isinstance(event, StepReport) and event.metrics.step % 10 == 0:
                print(f"  {folder.name} step {event.metrics.step} reward {event.metrics.values['reward/mean_frac']:.3f}", flush=True)
            elif isinstance(event, Outcome):
                print(f"  {folder.name} {event.reason}, hands over {event.handed_over}", flush=True)
    return recorded_evaluations(folder)


def base_rows(config: RunConfig) -> dict[str, Evaluation]:
    """The base greedy and at T = 0.5, on the held-out problems of a run."""
    run = start(config.model_copy(update={"run": config.run.model_copy(update={"name": None})}))
    run.ledger.close()
    assert run.problems.held_out is not None
    found = {}
    for name, temperature, samples in (("greedy", 0.0, 1), ("T = 0.5", 0.5, 16)):
        params = SamplingParams(config.rollout.max_new_tokens, temperature, stop=config.rollout.stop)
        found[name] = evaluate(run.policy, run.problems.held_out, params, samples, Stream(config.run.seed, stream="eval"))
    return found


def percent(value: float) -> str:
    return f"{100 * value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--folder", default="runs/learning")
    parser.add_argument("--config", nargs="*", default=[], help="TOML files; none: the default recipe")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), choices=list(SOURCES))
    args = parser.parse_args()
    gains: dict[str, list[float]] = {source: [] for source in args.sources}
    rows = []
    for seed in args.seeds:
        for source in args.sources:
            found = run_one(config_of(args, source, seed))
            before, after = found["before"], found.get("after", found["before"])
            difference = paired_difference(before, after)
            moved = gained_and_lost(before, after)
            gains[source].append(difference.value)
            cells = [
                source,
                str(seed),
                percent(before.avg.value),
                percent(after.avg.value),
                f"{percent(difference.value)} [{percent(difference.low)}, {percent(difference.high)}]",
                percent(before.maj.value),
                percent(after.maj.value),
                f"{len(moved.gained)} / {len(moved.lost)}",
                f"{percent(before.confident_wrong_frac.value)} -> {percent(after.confident_wrong_frac.value)}",
            ]
            rows.append(f"| {' | '.join(cells)} |")
    print("\n| source | seed | avg@16 before | after | gain [95 %] | maj@16 before | after | problems gained / lost | confident and wrong |")
    print("|---|---|---|---|---|---|---|---|---|")
    print("\n".join(rows))
    for name, row in base_rows(config_of(args, args.sources[0], args.seeds[0])).items():
        print(f"base {name}: avg {row.avg}, maj {row.maj}")
    for source, values in gains.items():
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        print(f"{source}: mean gain {percent(statistics.mean(values))} points, standard deviation over seeds {percent(spread)}")
    for source in sorted({"ema", "majority"} & gains.keys() if "reference" in gains else ()):
        print(f"{source}: {percent(statistics.mean(gains[source]) / statistics.mean(gains['reference']))} % of the labelled gain")


if __name__ == "__main__":
    main()
