"""The README's table of label sources: each from both embedded starts, against true answers and the controls.

    python benchmarks/labels.py --start weak --seeds tune                       # seeds 0-2: to choose a source and its settings
    python benchmarks/labels.py --start weak --seeds final                      # seeds 10-14: reported once
    python benchmarks/labels.py --start default --seeds final --sources majority frozen reference
    python benchmarks/labels.py --quick                                         # does it run? minutes, no result

Protocol: one learning rate for all sources of a start; prompts and 1,000 held-out problems disjoint, others for each seed; evaluations at the start and the
end; the guard only warns, so that every source has the whole budget; paired bootstrap over problems and seeds. What is finished in the folder
is kept, so the same command goes on where it was interrupted. It is `selftrain compare` with fixed options, and prints that command.
"""

from __future__ import annotations

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
SOURCES = ("majority", "ema", "frozen", "reference", "reference_5", "verifier_20", "random", "format_only")
"""names of label sources and of the variants in label_variants/"""
SEEDS = {"tune": (0, 1, 2), "final": (10, 11, 12, 13, 14)}


@dataclass(frozen=True)
class Start:
    """A start with the learning rate and the steps of all its sources."""

    model: str
    learning_rate: str
    steps: int
    why: str


STARTS = {
    "default": Start("embedded:default", "5e-5", 50, "the recipe's rate, at which the labelled run gains most of what it can (docs/log.md, 3 and 6)"),
    "weak": Start(
        "embedded:weak",
        "3e-4",
        40,
        "true answers teach most at it, and the plain majority is hacked (docs/log.md, 2026-11-25)",
    ),
}


def command(args: argparse.Namespace, start: Start) -> list[str]:
    """The call of `selftrain compare`."""
    steps = 4 if args.quick else args.steps or start.steps
    options = {
        "update.learning-rate": args.learning_rate or start.learning_rate,
        "run.num-steps": steps,
        "run.checkpoint-every-steps": max(1, steps // 2),
        "evals.num-problems": 32 if args.quick else args.problems,
        "guard.action": "warn",
    }
    seeds = (0,) if args.quick else SEEDS[args.seeds]
    folder = args.folder or f"runs/labels-{args.start}-{'quick' if args.quick else args.seeds}"
    sources = [f"{name}={file}" if (file := HERE / "label_variants" / f"{name}.toml").exists() else name for name in args.sources]
    words = ["compare", *args.config, "--sources", *sources, "--seeds", *map(str, seeds), "--models", start.model, "--folder", folder]
    return [*words, *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--start", choices=list(STARTS), default="weak")
    parser.add_argument("--seeds", choices=list(SEEDS), default="tune")
    parser.add_argument("--sources", nargs="+", default=list(SOURCES), help="names, of label_variants/ too, or NAME=FILE.toml")
    parser.add_argument("--steps", type=int, help="default: 50, from the weak start 40")
    parser.add_argument("--problems", type=int, default=1000)
    parser.add_argument("--learning-rate", help="instead of the start's")
    parser.add_argument("--folder", help="default: runs/labels-START-SEEDS")
    parser.add_argument("--config", nargs="*", default=[], help="TOML files below these options; none: the default recipe")
    parser.add_argument("--quick", action="store_true", help="4 steps, 32 problems, seed 0")
    args = parser.parse_args()
    start = STARTS[args.start]
    words = command(args, start)
    print(f"{start.model}, learning rate {args.learning_rate or start.learning_rate}: {'given' if args.learning_rate else start.why}")
    print(shlex.join(["selftrain", *words]), flush=True)
    path = os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH"))))  # where the verifier of the variants lies
    done = subprocess.run([sys.executable, "-m", "selftrain", *words], env={**os.environ, "PYTHONPATH": path})
    if done.returncode:
        sys.exit(done.returncode)
    folder = Path(words[words.index("--folder") + 1])
    print(f"\n{(folder / 'comparison.md').read_text('utf-8')}")


if __name__ == "__main__":
    main()
