"""A real model on GSM8K on one GPU: where the plain vote collapses, what do the other label sources and true answers reach in 40 steps?

    python benchmarks/gsm8k.py gsm8k_train.jsonl gsm8k_test.jsonl                  # all blocks; an hour or two on one H100, resumable
    python benchmarks/gsm8k.py gsm8k_train.jsonl gsm8k_test.jsonl --blocks t1      # the result that the project wants
    python benchmarks/gsm8k.py gsm8k_train.jsonl gsm8k_test.jsonl --model FOLDER --quick    # does it run? minutes on a CPU, no result

Both files have a `prompt` and an `answer` in each row. Answers of the training file are read by the row `reference` only, and after the runs for the
accuracy of labels. Set-up: 32 prompts x 16 votes, 300 new tokens, RLOO, one update a step, 256 test problems, avg@4 at T = 1 before, after 20 and after 40
steps. The guard only warns, so that every source has the whole budget.

    t1          T = 1, learning rate 3e-6: true answers, the plain vote, the averaged teacher (recommended), the start's vote, the vote from half the group on
    t07_slow    T = 0.7, learning rate 1e-6: true answers, the plain vote, the averaged teacher
    t07         T = 0.7, learning rate 3e-6: true answers, the plain vote, the averaged teacher, the vote from half the group on

At T = 0.7 the objective's log-probabilities are those of the distribution sampled from, as always here. It is `selftrain compare` with fixed options, once
for each block, and prints the commands. What is finished in the folder is kept.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

VARIANTS = Path(__file__).parent / "label_variants"
RECOMMENDED, PLAIN, LABELLED = "ema", "majority", "reference"
WANTED_SHARE = 0.6
"""Of the labelled gain, for the recommended source; it aims at 0.9."""


@dataclass(frozen=True)
class Block:
    """Rows that share temperature and learning rate; the sources are names of label sources or of files in label_variants/."""

    temperature: float
    learning_rate: str
    sources: tuple[str, ...]


BLOCKS = {
    "t1": Block(1.0, "3e-6", (LABELLED, PLAIN, RECOMMENDED, "frozen", "share_half")),
    "t07_slow": Block(0.7, "1e-6", (LABELLED, PLAIN, RECOMMENDED)),
    "t07": Block(0.7, "3e-6", (LABELLED, PLAIN, RECOMMENDED, "share_half")),
}


def options_of(args: argparse.Namespace, block: Block) -> dict[str, Any]:
    quick = args.quick
    return {
        "policy.device": args.device or ("cpu" if quick else "cuda"),
        "prompts.file": args.train,
        "prompts.count": 6 if quick else args.prompts,
        "evals.file": args.test,
        "evals.num_problems": 4 if quick else 256,
        "evals.num_samples": 4,
        "evals.every_steps": 1 if quick else 20,
        "rollout.prompts_per_step": 2 if quick else 32,
        "rollout.num_votes": 4 if quick else 16,
        "rollout.max_new_tokens": 16 if quick else 300,
        "rollout.temperature": block.temperature,
        "labels.min_read_frac": 0.25,
        "update.learning_rate": block.learning_rate,
        "update.warmup_steps": 0,
        "run.num_steps": 2 if quick else args.steps,
        "run.checkpoint_every_steps": 1 if quick else 20,
        "guard.action": "warn",
    }


def command(args: argparse.Namespace, name: str) -> list[str]:
    """The call of `selftrain compare` for a block."""
    block = BLOCKS[name]
    options = {option: value for option, value in options_of(args, block).items() if value is not None}
    flags = [word for option, value in options.items() for word in (f"--{option.replace('_', '-')}", str(value))]
    sources = [f"{source}={file}" if (file := VARIANTS / f"{source}.toml").exists() else source for source in args.sources or block.sources]
    seeds = [str(seed) for seed in args.seeds]
    return ["compare", *args.config, "--sources", *sources, "--seeds", *seeds, "--models", args.model, "--folder", str(args.folder / name), *flags]


def verdict(folder: Path) -> str:
    """What the block says about the project's wish: the recommended source against the labelled gain, and whether the plain vote collapsed."""
    (start,) = json.loads((folder / "comparison.json").read_text("utf-8"))["starts"]
    rows = {row["source"]: row for row in start["sources"]}
    said = []
    if RECOMMENDED in rows and LABELLED in rows:
        share = rows[RECOMMENDED]["share_of_reference_gain"]
        if share is None:
            said.append("true answers gained nothing that chance would not, so there is no share of it")
        else:
            reached = "at least" if share["value"] >= WANTED_SHARE else "NOT"
            said.append(f"{RECOMMENDED} reaches {percent(share)} of the labelled gain: {reached} {100 * WANTED_SHARE:.0f} %")
    if PLAIN in rows:
        gain = rows[PLAIN]["gain"]["avg"]["end"]
        said.append(f"{PLAIN} gains {percent(gain)} (points of avg@4): {'it loses' if gain['high'] < 0 else 'no loss'}")
    return "; ".join(said)


def percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.1f} % [{100 * interval['low']:.1f}, {100 * interval['high']:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", help="rows with a prompt and an answer")
    parser.add_argument("test", help="the same, other problems")
    parser.add_argument("--model", default="Qwen/Qwen2.5-Coder-0.5B-Instruct", help="a hub id or a Hugging Face folder")
    parser.add_argument("--blocks", nargs="+", choices=list(BLOCKS), default=list(BLOCKS))
    parser.add_argument("--sources", nargs="+", help="instead of a block's own: names, of label_variants/ too")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--prompts", type=int, help="the first so many training prompts; all without it")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: cuda, with --quick cpu")
    parser.add_argument("--folder", type=Path, default=Path("runs/gsm8k"))
    parser.add_argument("--config", nargs="*", default=[], help="TOML files below these options")
    parser.add_argument("--quick", action="store_true", help="2 steps of 2 x 4, 16 new tokens, 4 problems")
    args = parser.parse_args()
    if args.quick:
        args.folder = Path(f"{args.folder}-quick")
    for name in args.blocks:
        words = command(args, name)
        print(shlex.join(["selftrain", *words]), flush=True)
        done = subprocess.run([sys.executable, "-m", "selftrain", *words], check=False)
        if done.returncode:
            sys.exit(done.returncode)
        print(f"\n## {name}\n\n{(args.folder / name / 'comparison.md').read_text('utf-8')}\n{verdict(args.folder / name)}\n", flush=True)


if __name__ == "__main__":
    main()
