"""The level climb of Self-Rewarded Training (arXiv 2505.21444) on two tasks of reasoning-gym, with a small model that is made here.

    python benchmarks/climb.py --task family --seeds 10 11 12 13 14
    python benchmarks/climb.py --task letters --seeds 10 11 12 13 14
    python benchmarks/climb.py --quick                    # does it run? both tasks, minutes, no result
    python benchmarks/climb.py --task family --only-report

A start is taught written solutions of level k. Then each arm trains on prompts of level k + 1, and from where that ends on level k + 2:

    majority     evolving teacher: the vote of the policy as it is
    ema          evolving teacher: the vote of its moving average
    frozen       fixed teacher: the vote of the supervised start, on both rungs
    reference    true answers: the upper bound

All arms of a seed have the same prompts, steps, learning rate and held-out problems of all three levels; no lesson and no training prompt is among these.
Answers are compared by their keys, which is what reasoning-gym's own verifiers of these tasks say too (tests/test_climb.py). The guard is off, so that the end
of an arm is its last weights. What is finished in the folder is kept: the same command goes on where it was interrupted. Needs the extra `gym`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from climb_lessons import CLIMBS, Climb
from climb_report import write_report
from climb_start import Teaching, make_start
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.evals import Evaluation
from selftrain.ledger import read
from selftrain.measured import recorded_evaluations
from selftrain.prompts import load_problems
from selftrain.report.record import read_record
from selftrain.run import Outcome, resume, start
from selftrain.stored_labels import label, prepare
from selftrain.train import StepReport

ARMS = {
    "majority": ("majority", "majority"),
    "ema": ("ema", "ema"),
    "frozen": ("frozen", "stored"),
    "reference": ("reference", "reference"),
}
"""Label source on each rung. `frozen` on the second would ask the start of that run, which has climbed a level already."""


@dataclass(frozen=True)
class Setting:
    """teachings: what the start is taught, one after the other. steps, learning_rate: of each rung."""

    teachings: tuple[Teaching, ...]
    steps: int
    learning_rate: float


CLEAN, SLIPPING = Teaching(600, 2e-3, 0.0), Teaching(350, 1e-3, 0.12)
"""First how it is done, then with slips: single samples then fail where the vote of sixteen does not, and labels can be better than what they reward."""
SETTINGS = {"family": Setting((CLEAN, SLIPPING), 40, 5e-5), "letters": Setting((replace(CLEAN, steps=2000), SLIPPING), 40, 1e-4)}


def config_of(args: argparse.Namespace, climb: Climb, rung: int, arm: str, seed: int, model: Path) -> RunConfig:
    """The run of one arm on rung 1 or 2."""
    setting = SETTINGS[args.task]
    options = {
        "run.folder": str(args.folder / args.task),
        "run.name": f"{arm}-seed-{seed}-rung-{rung}",
        "run.seed": seed,
        "run.num_steps": args.steps or setting.steps,
        "run.checkpoint_every_steps": max(1, (args.steps or setting.steps) // 2),
        "policy.model": str(model),
        "policy.num_threads": args.threads,
        "prompts.task": f"gym:{climb.task}:{climb.levels[rung]}",
        "prompts.count": args.prompts,
        "rollout.prompts_per_step": args.prompts_per_step,
        "rollout.num_votes": 16,
        "rollout.max_new_tokens": climb.max_new_tokens,
        "labels.source": ARMS[arm][rung - 1],
        "stored.file": str(args.folder / args.task / "teacher-seed-{seed}.jsonl") if ARMS[arm][rung - 1] == "stored" else None,
        "update.learning_rate": args.learning_rate or setting.learning_rate,
        "update.tokens_per_microbatch": 4096,
        "update.warmup_steps": 2,
        "guard.action": "off",
        "evals.task": ",".join(f"gym:{climb.task}:{level}" for level in climb.levels),
        "evals.num_problems": 3 * args.problems,
    }
    return load_config([], options)


def run_one(config: RunConfig, known: tuple[Evaluation, str] | None) -> tuple[Evaluation, Evaluation, Path]:
    """Evaluations before and after, and the last weights; from the folder if the run is there. known: the evaluation of its start and who made it."""
    folder = Path(config.run.folder) / str(config.run.name)
    if not folder.exists() or not read(folder).finished:
        begun = time.monotonic()
        is_new = not folder.exists()
        run = start(config) if is_new else resume(folder)
        if is_new and known is not None:
            run.know_start(*known)
        for event in run.events():
            if isinstance(event, StepReport) and event.metrics.step % 10 == 0:
                print(f"  {folder.name} step {event.metrics.step} reward {event.metrics.values['reward/mean_frac']:.3f}", flush=True)
            elif isinstance(event, Outcome):
                print(f"  {folder.name} {event.reason} after {time.monotonic() - begun:.0f} s", flush=True)
    found = recorded_evaluations(folder)
    return found["before"], found["after"], Path(read_record(folder).handed_over_path)


def start_of(args: argparse.Namespace, climb: Climb) -> Path:
    """The supervised start, made where it is missing; held-out problems are not taught."""
    home, teachings = args.folder / args.task, SETTINGS[args.task].teachings
    ids, start = barred(args, climb), home / "start"
    begin: Path | None = None
    for number, teaching in enumerate(teachings, 1):
        target = start if number == len(teachings) else home / f"taught-{number}"
        if not target.exists() and not start.exists():
            begun, part = time.monotonic(), home / f"{target.name}.part"
            shutil.rmtree(part, ignore_errors=True)
            make_start(climb, replace(teaching, steps=args.start_steps or teaching.steps), 0, ids, begin, part)
            part.rename(target)
            print(f"  {target} made after {time.monotonic() - begun:.0f} s", flush=True)
        begin = target
    return start


def barred(args: argparse.Namespace, climb: Climb) -> list[str]:
    """Ids of the held-out problems of all seeds, kept in the folder. Exits where the start was taught some of the problems that are asked for now."""
    path = args.folder / args.task / "barred.json"
    if not path.exists():
        ids: set[str] = set()
        for seed in args.seeds if args.quick else SEEDS:
            config = config_of(args, climb, 1, "majority", seed, path)
            ids |= {prompt.id for prompt in load_problems(config.evals, config.prompts, seed) or ()}
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"problems": args.problems, "ids": sorted(ids)}), "utf-8")
    found = json.loads(path.read_text("utf-8"))
    if args.problems > found["problems"]:
        sys.exit(f"{path} keeps {found['problems']} problems of each level out of the lessons, not {args.problems}: take another --folder or fewer --problems")
    return list(found["ids"])


QUICK = {"start_steps": 20, "steps": 2, "problems": 16, "prompts": 64, "prompts_per_step": 4, "seeds": [0]}
SEEDS = (0, 1, 2, 10, 11, 12, 13, 14)
"""0 to 2 to choose settings, 10 to 14 to report once; the held-out problems of all of them are barred from the lessons."""


def climb_one(args: argparse.Namespace, climb: Climb, arm: str, seed: int, known: Evaluation | None) -> Evaluation:
    """Both rungs of an arm; gives the evaluation of the start, for the other arms of the seed."""
    model = start_of(args, climb)
    first = config_of(args, climb, 1, arm, seed, model)
    before, middle, weights = run_one(first, known and (known, f"the start, seed {seed}"))
    second = config_of(args, climb, 2, arm, seed, weights)
    if second.stored_file is not None and not (Path(second.run.folder) / str(second.run.name)).exists():
        for _ in label(prepare(second.model_copy(update={"policy": first.policy}), Path(second.stored_file))):
            pass
    run_one(second, (middle, str(first.run.name)))
    return before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(CLIMBS), help="one of them; both without it")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], choices=SEEDS, metavar="SEED", help=f"of {SEEDS}")
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--folder", type=Path, default=Path("runs/climb"))
    parser.add_argument("--problems", type=int, default=400, help="held-out problems of each level")
    parser.add_argument("--prompts", type=int, default=1024, help="training prompts of each rung")
    parser.add_argument("--prompts-per-step", type=int, default=32)
    parser.add_argument("--steps", type=int, help="of each rung, instead of the task's")
    parser.add_argument("--start-steps", type=int, help="supervised steps of each stretch, instead of the task's")
    parser.add_argument("--learning-rate", type=float, help="instead of the task's")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only-report", action="store_true", help="table and figure from the runs that are there")
    parser.add_argument("--quick", action="store_true", help="a start of 20 steps, 2 steps a rung, 16 problems a level, seed 0: no result")
    args = parser.parse_args()
    if args.quick:
        vars(args).update(QUICK, folder=Path(f"{args.folder}-quick"))
    torch.set_num_threads(args.threads)
    for name in [args.task] if args.task else list(CLIMBS):
        args.task = name
        climb = CLIMBS[args.task]
        if not args.only_report:
            for seed in args.seeds:
                known: Evaluation | None = None
                for arm in args.arms:
                    known = climb_one(args, climb, arm, seed, known)
        found = write_report(args.folder / args.task, climb, args.arms, args.seeds)
        print(f"\n{found.read_text('utf-8')}\n{found} and {found.with_suffix('.svg').name}")


if __name__ == "__main__":
    main()
