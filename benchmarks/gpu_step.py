"""Sampling and update of a real model on one GPU, apart: with the Triton kernels and without, and against the size of micro-batches.

    python benchmarks/gpu_step.py MODEL_FOLDER PROMPTS.jsonl                       # a minute on an H100
    python benchmarks/gpu_step.py MODEL_FOLDER PROMPTS.jsonl --profile             # and the kernels that take longest
    python benchmarks/gpu_step.py MODEL_FOLDER PROMPTS.jsonl --device cpu --size 2 2 6     # does it run?

Lengths are fixed (no token ends a completion) and every completion trains. Whole steps of the loop, against TRL: `speed.py`. Needs a CUDA build of torch, which
brings Triton. A number that is not finite ends the program.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from selftrain.config import PolicySection, UpdateSection
from selftrain.objective import Objective
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.torch import TorchPolicy, draw, forward, fused, head, load_policy
from selftrain.policies.torch.hardware import matrix_rate, synchronize
from selftrain.seeds import Stream
from selftrain.types import Group, Message, Prompt, TrainingSample
from speed import fix_lengths

KERNELS, FUSE = fused.kernels, forward.fuse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a Hugging Face folder")
    parser.add_argument("prompts", type=Path, help="JSON lines with a prompt or question each")
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--size", type=int, nargs=3, default=(32, 16, 300), metavar=("PROMPTS", "VOTES", "TOKENS"))
    parser.add_argument("--tokens", type=int, nargs="*", default=[4096, 8192, 16384, 32768], help="of a micro-batch, tried beside the default")
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    device = torch.device(args.device)
    print(f"matrix products in bfloat16: {matrix_rate(device, 'bfloat16') / 1e12:.0f} TFLOP/s", flush=True)
    for with_kernels in (True, False):
        print(f"\n{'with' if with_kernels else 'without'} kernels" + ("" if not with_kernels or KERNELS(args.device) else " (there are none here)"), flush=True)
        measure(args, device, with_kernels)
        if args.device == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()


def measure(args: argparse.Namespace, device: torch.device, with_kernels: bool) -> None:
    """Three samplings and three updates, in this order; the first of each also prepares."""
    for module in (fused, draw, head):
        module.kernels = KERNELS if with_kernels else lambda _device: None  # type: ignore[attr-defined]
    forward.fuse = FUSE if with_kernels else lambda _model: None
    policy = load_policy(PolicySection(model=args.model, device=args.device, dtype="bfloat16"), UpdateSection(), args.model)
    fix_lengths(policy)
    count, votes, tokens = args.size
    rows = [json.loads(line) for line in args.prompts.read_text("utf-8").splitlines()[:count]]
    prompts = [Prompt(str(at), (Message("user", str(row.get("prompt") or row["question"])),)) for at, row in enumerate(rows)]
    requests = [SampleRequest(prompt, votes, 0, at) for at, prompt in enumerate(prompts)]

    def sample(step: int, length: int = tokens) -> list[Group]:
        return policy.sample(requests, SamplingParams(length), Stream(step, stream="sample"))

    groups = sample(0)
    print("  sampling, s:        " + row_of(timed(device, lambda step=step: sample(step)) for step in range(3)), flush=True)
    samples = [one for group in groups for one in samples_of(group, 1 / (count * votes * tokens))]
    update_row = row_of(timed(device, lambda: update(policy, samples)) for _ in range(3))
    print(f"  update, s:          {update_row}, micro-batches of {policy.learner.tokens_per_microbatch} tokens", flush=True)
    if device.type == "cuda":
        print(f"  peak memory, GiB:   {torch.cuda.max_memory_allocated() / 2**30:.1f}", flush=True)
    if args.profile:
        profile(device, "40 tokens", lambda: sample(0, min(tokens, 40)))
        profile(device, "an update with an eighth of the completions", lambda: update(policy, samples[: max(2, len(samples) // 8)]))
    for size in args.tokens if with_kernels else ():
        policy.learner._microbatch_tokens = {False: size}
        try:
            print(
                f"  update, s:          {row_of(timed(device, lambda: update(policy, samples)) for _ in range(2))}, micro-batches of {size} tokens", flush=True
            )
        except torch.OutOfMemoryError:
            print(f"  micro-batches of {size} tokens do not fit", flush=True)


def samples_of(group: Group, scale: float) -> list[TrainingSample]:
    """Advantages alternate, so that every completion trains."""
    found = []
    for at, done in enumerate(group.completions):
        length = len(done.token_ids)
        advantages, mask = (1.0 if at % 2 else -1.0,) * length, (True,) * length
        found.append(TrainingSample(group.prompt_ids, done.token_ids, advantages, mask, done.logprobs, (), scale, group.index, done.version))
    return found


def update(policy: TorchPolicy, samples: Sequence[TrainingSample]) -> None:
    stats = policy.learner.update(samples, Objective(), 1e-9)
    numbers = {"loss": stats.loss, "gradient norm": stats.grad_norm, "gap of log-probabilities": stats.logprob_gap_nats}
    if not all(map(math.isfinite, numbers.values())):
        sys.exit(f"not finite: {numbers}")


def timed(device: torch.device, work: Callable[[], Any]) -> float:
    synchronize(device)
    begun = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - begun


def row_of(seconds: Any) -> str:
    return ", ".join(f"{one:.2f}" for one in seconds)


def profile(device: torch.device, name: str, work: Callable[[], Any]) -> None:
    """The twenty kernels (on a CPU operations) that take longest."""
    from torch.profiler import ProfilerActivity

    is_cuda = device.type == "cuda"
    with torch.profiler.profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]) as found:
        timed(device, work)
    of = "self_device_time_total" if is_cuda else "self_cpu_time_total"
    print(f"  {name}:")
    for event in sorted(found.key_averages(), key=lambda event: -getattr(event, of))[:20]:
        print(f"    {getattr(event, of) / 1e3:9.2f} ms {event.count:6d} x {event.key[:100]}", flush=True)


if __name__ == "__main__":
    main()
