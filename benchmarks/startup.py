"""Seconds from the call of `selftrain train` to its first sampled token, and of `selftrain --help`: median of fresh processes.

    python benchmarks/startup.py [--runs 5] [--imports 20]

The embedded model on CPU, as shipped. The evaluation before training has one problem, one sample and one new token, so the line that tells its result comes
right after the first token; the time to that line is reported, an upper bound. Every process is fresh; files are in the page cache after the first one, which
is shown and not counted. --imports N also lists the N slowest imports of the way there (by their own time, `python -X importtime`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from statistics import median

FIRST_TOKEN = ("--log", "json", "--run.num-steps", "1", "--rollout.max-new-tokens", "1", "--evals.num-problems", "1", "--evals.num-samples", "1")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--imports", type=int, default=0)
    options = parser.parse_args()
    for name, measure in (("train to the first token", first_token), ("--help", help_text)):
        first, *others = [measure() for _ in range(options.runs + 1)]
        print(f"selftrain {name:<26} median {median(others):.2f} s of {options.runs} ({min(others):.2f} to {max(others):.2f}), first {first:.2f} s", flush=True)
    if options.imports:
        for seconds, package in slow_imports(options.imports):
            print(f"{seconds:7.2f} s  {package}")


def first_token() -> float:
    """Seconds until the line of the first evaluation."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.perf_counter()
        with subprocess.Popen(train_command(folder), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if json.loads(line)["event"] == "evaluation":
                    seconds = time.perf_counter() - begun
                    process.terminate()
                    process.communicate()
                    return seconds
    raise SystemExit("selftrain train ended without an evaluation")


def train_command(folder: str, *python: str) -> list[str]:
    return [sys.executable, *python, "-m", "selftrain", "train", "--run.folder", folder, *FIRST_TOKEN]


def help_text() -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, "-m", "selftrain", "--help"], check=True, capture_output=True)
    return time.perf_counter() - begun


def slow_imports(count: int) -> list[tuple[float, str]]:
    """Own import seconds summed by package of two levels."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(train_command(folder, "-X", "importtime"), check=False, capture_output=True, text=True)
    own: Counter[str] = Counter()
    for line in done.stderr.splitlines():
        if line.startswith("import time:") and "|" in line and "self" not in line:
            microseconds, _, module = line.removeprefix("import time:").split("|")
            own[".".join(module.strip().split(".")[:2])] += int(microseconds)
    return [(microseconds / 1e6, package) for package, microseconds in own.most_common(count)]


if __name__ == "__main__":
    main()
