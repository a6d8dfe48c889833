"""Peak memory and processor time of an update alone, against the tokens of a micro-batch.

    python benchmarks/update_memory.py MODEL_FOLDER --dtype bfloat16 --tokens 4096 1024 512 0       # 0: update.tokens_per_microbatch unset

8 prompts of 78 to 169 random tokens x 8 completions of 64, two updates, each size in a process of its own: the second one's figures, as moments exist from the
first on. Peak: VmHWM of the process, libraries included. Processor time does not count what others do on the machine.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import time
from pathlib import Path

PROMPTS, VOTES, PROMPT_TOKENS, NEW_TOKENS, VOCABULARY = 8, 8, 130, 64, 40_000


def main() -> None:
    options = parsed()
    if options.one:
        measure(options)
        return
    print(f"{'asked':>8}{'tokens':>8}{'before, MiB':>13}{'peak, MiB':>11}{'processor, s':>14}", flush=True)
    for tokens in options.tokens:
        command = [sys.executable, __file__, options.model, "--dtype", options.dtype, "--threads", str(options.threads), "--tokens", str(tokens), "--one"]
        subprocess.run(command, check=True)


def measure(options: argparse.Namespace) -> None:
    import torch

    from selftrain.config import PolicySection, UpdateSection
    from selftrain.objective import Objective
    from selftrain.policies.torch import load_policy
    from selftrain.types import PolicyVersion, TrainingSample

    torch.set_num_threads(options.threads)
    (asked,), rng, samples = options.tokens, random.Random(0), []
    policy = load_policy(PolicySection(dtype=options.dtype), UpdateSection(**({"tokens_per_microbatch": asked} if asked else {})), options.model)
    for group in range(PROMPTS):
        prompt = tuple(rng.randrange(100, VOCABULARY) for _ in range(int(PROMPT_TOKENS * (0.6 + 0.1 * group))))
        for vote in range(VOTES):
            ids = tuple(rng.randrange(100, VOCABULARY) for _ in range(NEW_TOKENS))
            advantage, scale = (-1.0) ** vote, 1 / (PROMPTS * VOTES * NEW_TOKENS)
            numbers = [(value,) * NEW_TOKENS for value in (advantage, True, -10.0)]
            samples.append(TrainingSample(prompt, ids, *numbers, (), scale, group, PolicyVersion(0, 0)))  # type: ignore[arg-type]
    for _ in range(2):
        before, begun = memory_mib("VmRSS"), time.process_time()
        policy.learner.update(samples, Objective(), 1e-9)
        spent = time.process_time() - begun
    print(f"{asked:>8}{policy.learner.tokens_per_microbatch:>8}{before:>13.0f}{memory_mib('VmHWM'):>11.0f}{spent:>14.1f}", flush=True)


def memory_mib(name: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) / 1024


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, nargs="+", default=[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
