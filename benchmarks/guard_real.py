"""The guard on a real language model: small sums behind two examples, LoRA, on a CPU. Recorded and judged as the laboratory's runs are (`guard_lab.py`).

    python benchmarks/guard_real.py MODEL_FOLDER --folder runs/guard-real --hours 1     # goes on where it was; several may share the folder, one thread each

MODEL_FOLDER: a small model of Hugging Face, for example SmolLM2-135M-Instruct, to which the sums are as hard as `add:4` is to the embedded ones. Of the guard
one number was set on two of these runs, `BARE_TOKENS` (docs/log.md). Prints of each run its accuracy, where the guard would halt, and what it would hand over.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

from guard_curves import accuracy_at
from guard_lab import Cell, claimed, done, record
from guard_runs import Judged, judged, load
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.ledger.storage import publish
from selftrain.seeds import Stream

TASK = "sums:1"
EXAMPLES = "41 + 6 = 47\n58 - 7 = 51\n"
WAYS = (("majority", "3e-4"), ("ema", "3e-4"), ("inverted", "1e-4"), ("reference", "3e-4"), ("majority", "1e-4"))
STEPS, EVERY, PROBLEMS = 30, 5, 64


def cells() -> Iterator[Cell]:
    """Seeds last: a laboratory that is stopped early has few seeds of everything."""
    for seed, (source, rate) in product(range(5), WAYS):
        yield Cell("real", TASK, rate, source, seed)


def sums(seed: int) -> list[dict[str, str]]:
    """All sums and differences of a number to 30 and one to 9, none of them below 0, in an order of this seed."""
    parts = [(first, sign, second) for first, second, sign in product(range(2, 31), range(2, 10), "+-") if sign == "+" or first >= second]
    rows = [{"prompt": f"{first} {sign} {second}", "answer": str(first + second if sign == "+" else first - second)} for first, sign, second in parts]
    return [rows[at] for at in Stream(seed).at(stream="sums").generator().permutation(len(rows))]


def files(folder: Path, seed: int) -> tuple[Path, Path]:
    """(training sums, held-out sums) as JSONL."""
    rows, paths = sums(seed), (folder / f"train-{seed}.jsonl", folder / f"held-out-{seed}.jsonl")
    for path, part in zip(paths, (rows[PROBLEMS:], rows[:PROBLEMS]), strict=True):
        publish(path, "".join(json.dumps(row) + "\n" for row in part).encode())
    return paths


def config_of(cell: Cell, folder: Path, model: Path) -> RunConfig:
    train, held_out = files(folder, cell.seed)
    return load_config(
        [],
        {
            "run.folder": str(folder),
            "run.name": cell.name,
            "run.seed": cell.seed,
            "run.num_steps": STEPS,
            "run.checkpoint_every_steps": EVERY,
            "run.num_checkpoints": STEPS,
            "policy.model": str(model),
            "policy.num_threads": 1,
            "policy.prompt_format": "plain",
            "policy.plain_template": "{prompt}",
            "policy.lora_rank": 16,
            "prompts.file": str(train),
            "prompts.template": f"{EXAMPLES}{{prompt}} =",
            "rollout.prompts_per_step": 12,
            "rollout.num_votes": 8,
            "rollout.max_new_tokens": 6,
            "rollout.stop": ["\n"],
            "labels.source": cell.source,
            "update.learning_rate": float(cell.learning_rate),
            "probes.num_prompts": 48,
            "guard.action": "warn",
            "evals.file": str(held_out),
            "evals.num_problems": PROBLEMS,
            "evals.num_samples": 8,
            "evals.every_steps": EVERY,
        },
    )


def said(one: Judged) -> str:
    """One run in a line."""
    run = one.run
    curve = " ".join(f"{step}:{100 * value:.0f}" for step, value in run.curve)
    lost = one.lost("harmed")
    halted = "not halted" if one.harmed is None or lost is None else f"halted at step {one.harmed} ({', '.join(one.said[1])}), {100 * lost:.1f} points lost"
    given, start, best = accuracy_at(run.curve, one.handed_over), run.curve[0][1], max(value for _, value in run.curve)
    handed = f"hands over {one.handed_over}: {100 * (given - best):+.1f} to the best, {100 * (given - start):+.1f} to the start"
    return f"{run.cell.name:34} {run.fate:9} {curve}; {halted}; {handed}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--folder", type=Path, default=Path("runs/guard-real"))
    parser.add_argument("--hours", type=float, default=1.0, help="start no further run after so long")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 3600 * args.hours
    for cell in cells():
        if not done(args.folder / cell.name) and time.monotonic() < until:
            with claimed(args.folder, cell.name) as mine:
                if mine and not done(args.folder / cell.name):
                    record(config_of(cell, args.folder, args.model))
                    shutil.rmtree(args.folder / cell.name / "checkpoints")  # half a GB each; what is judged is in the record
    for run in load(args.folder, (TASK,)):
        print(said(judged(run)))


if __name__ == "__main__":
    main()
