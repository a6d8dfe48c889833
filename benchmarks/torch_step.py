"""Times one training step of the embedded model (32 prompts x 16 votes): this package against `model.generate` and a naive full-batch update.

    python benchmarks/torch_step.py [--repeats 5] [--threads 2] [--clock wall|cpu] [--model FOLDER] [--task add:4] [--max-new-tokens 64]

Both sides run in turn on the same weights, prompts and threads. The naive side pads all 512 sequences to one batch: `generate` with its own cache, then
logits of every position, log-softmax, loss, backward, AdamW. The floor is 2 (sampling) and 6 (update) operations per weight and token at the matrix rate
measured here. Times are medians in seconds; the machine should be idle, or else --threads 1 --clock cpu counts the work alone. Tokens differ a little:
both sides draw from the same distribution.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TypeVar

import torch

import selftrain.models
from selftrain.config import PolicySection, UpdateSection
from selftrain.objective import Objective
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.torch import TorchPolicy, load_policy
from selftrain.prompts.tasks import mixture
from selftrain.seeds import Stream
from selftrain.types import Group, TrainingSample

PROMPTS, VOTES = 32, 16
T = TypeVar("T")
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time, "now": time.perf_counter}


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    CLOCKS["now"] = CLOCKS[options.clock]
    policies = [load_policy(PolicySection(), UpdateSection(), str(options.model)) for _ in range(2)]
    prompts = mixture(options.task, PROMPTS, seed=0).prompts
    requests = [SampleRequest(prompt, VOTES, 0, at) for at, prompt in enumerate(prompts)]
    rows: dict[str, list[float]] = {"sampling": [], "generate": [], "update": [], "naive update": []}
    for repeat in range(options.repeats + 1):
        params = SamplingParams(options.max_new_tokens)
        groups = timed(rows["sampling"], lambda: policies[0].sample(requests, params, Stream(0, stream="sample").at(branch=repeat)))  # noqa: B023
        naive_tokens = timed(rows["generate"], lambda: generate(policies[1], groups, options.max_new_tokens))  # noqa: B023
        samples = samples_of(groups, policies[0])
        timed(rows["update"], lambda: policies[0].update(samples, Objective(), 1e-6))  # noqa: B023
        timed(rows["naive update"], lambda: naive_update(policies[1], samples))  # noqa: B023
    weights = sum(weight.numel() for weight in policies[0].learner.weights.values())
    sampled = sum(len(sample.token_ids) for sample in samples)
    trained = sum(len(sample.prompt_ids) + len(sample.token_ids) for sample in samples)
    rate = matrix_rate()
    print(f"{weights:,} weights, {options.threads} threads, {options.clock} clock, matrix rate {rate / 1e9:.0f} GFLOP/s")
    print(f"{sampled:,} tokens sampled ({naive_tokens:,} by generate), {trained:,} trained")
    print(f"{'':10}{'this':>8}{'naive':>8}{'factor':>8}{'floor':>8}")
    report("sampling", rows["sampling"], rows["generate"], 2 * weights * sampled / rate)
    report("update", rows["update"], rows["naive update"], 6 * weights * trained / rate)
    both = [[a + b for a, b in zip(rows[one], rows[two], strict=True)] for one, two in (("sampling", "update"), ("generate", "naive update"))]
    report("step", both[0], both[1], (2 * sampled + 6 * trained) * weights / rate)


def report(name: str, this: list[float], naive: list[float], floor: float) -> None:
    """One row; the first repeat warms up and does not count."""
    mine, its = median(this[1:]), median(naive[1:])
    print(f"{name:10}{mine:8.2f}{its:8.2f}{its / mine:8.1f}{floor:8.2f}")


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--model", type=Path, default=Path(selftrain.models.__file__).parent / "default")
    parser.add_argument("--task", default="add:4")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    return parser.parse_args()


def timed(times: list[float], work: Callable[[], T]) -> T:
    begin = CLOCKS["now"]()
    result = work()
    times.append(CLOCKS["now"]() - begin)
    return result


def samples_of(groups: list[Group], policy: TorchPolicy) -> list[TrainingSample]:
    """Every completion has signal: advantages of both signs."""
    samples = []
    for group in groups:
        for at, done in enumerate(group.completions):
            length = len(done.token_ids)
            advantage = 1.0 if at % 2 else -1.0
            samples.append(
                TrainingSample(group.prompt_ids, done.token_ids, (advantage,) * length, (True,) * length, done.logprobs, (), 1e-4, group.index, policy.version)
            )
    return samples


def generate(policy: TorchPolicy, groups: list[Group], max_new_tokens: int) -> int:
    """`model.generate` on all sequences, padded on the left; returns the number of tokens that count."""
    prompts = [group.prompt_ids for group in groups for _ in range(VOTES)]
    width = max(len(ids) for ids in prompts)
    ids_BT = torch.tensor([[policy.pad_id] * (width - len(ids)) + list(ids) for ids in prompts])
    mask_BT = torch.tensor([[0] * (width - len(ids)) + [1] * len(ids) for ids in prompts])
    with torch.inference_mode():
        output_BT = policy.forward.model.generate(
            ids_BT, attention_mask=mask_BT, do_sample=True, top_k=0, max_new_tokens=max_new_tokens, pad_token_id=policy.pad_id
        )
    policy.tokenizer.batch_decode(output_BT[:, width:], skip_special_tokens=True)
    return int((output_BT[:, width:] != policy.pad_id).sum())


def naive_update(policy: TorchPolicy, samples: list[TrainingSample]) -> None:
    """All sequences in one batch, logits of every position."""
    width = max(len(sample.prompt_ids) + len(sample.token_ids) for sample in samples)
    ids_BT = torch.full((len(samples), width), policy.pad_id)
    weight_BT = torch.zeros((len(samples), width))
    for row, sample in enumerate(samples):
        begin, end = len(sample.prompt_ids), len(sample.prompt_ids) + len(sample.token_ids)
        ids_BT[row, :end] = torch.tensor(sample.prompt_ids + sample.token_ids)
        weight_BT[row, begin:end] = torch.tensor(sample.advantages) * sample.scale
    logits_BTV = policy.forward.model(ids_BT, attention_mask=torch.ones_like(ids_BT)).logits
    logprobs_BT = logits_BTV[:, :-1].log_softmax(-1).gather(-1, ids_BT[:, 1:, None])[..., 0]
    (-logprobs_BT * weight_BT[:, 1:]).sum().backward()
    torch.nn.utils.clip_grad_norm_(policy.forward.model.parameters(), 1.0)
    policy.learner.optimizer.step()
    policy.learner.optimizer.zero_grad()


def matrix_rate() -> float:
    """Operations a second of a float32 matrix product of the model's shape, the best of twenty."""
    left, right = torch.randn(4096, 512), torch.randn(512, 512)
    times: list[float] = []
    for _ in range(20):
        timed(times, lambda: left @ right)
    return 2 * 4096 * 512 * 512 / min(times)


if __name__ == "__main__":
    main()
