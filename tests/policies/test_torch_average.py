"""The moving average of torch weights: the formula, sampling in the weights' place and exactly back, and the checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch_models import groups_of, policy_of, requests_for, samples_of, write_model

from selftrain.errors import CheckpointError, PromptError
from selftrain.models import folder as embedded_folder
from selftrain.objective import Objective
from selftrain.policies.base import Sampler, SamplingParams
from selftrain.policies.torch import TorchPolicy
from selftrain.policies.torch.average import EMA_FILE
from selftrain.seeds import Stream
from selftrain.types import Message, PolicyVersion, Prompt

OBJECTIVE = Objective()
HOW = (SamplingParams(12), Stream(5, stream="sample"))
KINDS = pytest.mark.parametrize(
    "options", [{}, pytest.param({"lora_rank": 2}, marks=pytest.mark.filterwarnings("ignore")), {"dtype": "bfloat16"}], ids=["weights", "lora", "bfloat16"]
)


def values_of(policy: TorchPolicy) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in policy.learner.weights.items()}


def equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return found.keys() == expected.keys() and all(torch.equal(value, expected[name]) for name, value in found.items())


def learn(policy: TorchPolicy, times: int = 1) -> None:
    for _ in range(times):
        policy.update(samples_of(groups_of(policy)), OBJECTIVE, 0.05)


@KINDS
def test_the_average_draws_in_place_and_the_weights_come_back_bit_for_bit(tmp_path: Path, options: dict[str, Any]) -> None:
    policy = policy_of(write_model(tmp_path), options)
    assert policy._average is None
    assert isinstance(policy.ema(), Sampler)
    before, first = groups_of(policy), policy.weights_hash()
    assert policy.ema().sample(requests_for(), *HOW) == before
    learn(policy, 2)
    learned, average, digest = values_of(policy), {name: value.clone() for name, value in policy.ema().average.values.items()}, policy.weights_hash()
    drawn = policy.ema().sample(requests_for(), *HOW)
    assert equal(values_of(policy), learned)
    assert equal(policy.ema().average.values, average)
    assert policy.weights_hash() == digest != first
    with policy.ema().average.in_place(policy.forward.refresh):
        assert equal(values_of(policy), average)
        inside = groups_of(policy)
    assert drawn == inside
    learner = groups_of(policy)
    policy.forward.refresh()
    assert groups_of(policy) == learner  # a bfloat16 copy is that of the weights again
    assert drawn not in (before, groups_of(policy))
    assert drawn[0].completions[0].version == policy.ema().version == PolicyVersion(0, 2)


@KINDS
def test_the_formula(tmp_path: Path, options: dict[str, Any]) -> None:
    """After two updates 0.95^2 w0 + 0.05 * 0.95 w1 + 0.05 w2, in float32, of what is trained: all weights, or the adapters."""
    policy = policy_of(write_model(tmp_path), options)
    policy.ema()
    seen = [values_of(policy)]
    for _ in range(2):
        learn(policy)
        seen.append(values_of(policy))
    for name, value in policy.ema().average.values.items():
        expected = 0.95**2 * seen[0][name] + 0.05 * 0.95 * seen[1][name] + 0.05 * seen[2][name]
        torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-5)
        assert value.dtype is torch.float32
    assert all(("lora" in name) == ("lora_rank" in options) for name in policy.ema().average.values)


def test_the_weights_come_back_when_sampling_fails(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    policy.ema()
    learn(policy)
    digest = policy.weights_hash()
    with pytest.raises(PromptError):
        policy.ema().sample(requests_for([Prompt("long", (Message("user", "a" * 140),))]), *HOW)
    assert policy.weights_hash() == digest


@KINDS
def test_a_resumed_policy_goes_on_with_the_same_average(tmp_path: Path, options: dict[str, Any]) -> None:
    source = write_model(tmp_path / "start")
    policy = policy_of(source, options)
    policy.ema()
    learn(policy, 2)
    folder = tmp_path / "kept"
    policy.save(folder)
    policy.save_optimizer(folder)
    resumed = policy_of(source, options)
    resumed.load(folder)
    assert equal(resumed.ema().average.values, policy.ema().average.values)
    for one in (policy, resumed):
        learn(one, 2)
    assert equal(resumed.ema().average.values, policy.ema().average.values)
    assert resumed.ema().sample(requests_for(), *HOW) == policy.ema().sample(requests_for(), *HOW)


def test_a_checkpoint_without_an_average_begins_a_new_one_and_a_damaged_one_changes_nothing(tmp_path: Path) -> None:
    source = write_model(tmp_path / "start")
    policy = policy_of(source)
    learn(policy)
    folder = tmp_path / "kept"
    policy.save(folder)
    policy.save_optimizer(folder)
    assert not (folder / EMA_FILE).exists()
    policy.ema()
    learn(policy)
    policy.load(folder)
    assert policy._average is None
    assert equal(policy.ema().average.values, values_of(policy))
    policy.save_optimizer(folder)
    learn(policy)
    now = policy.weights_hash()
    (folder / EMA_FILE).write_bytes((folder / EMA_FILE).read_bytes()[:-7])
    with pytest.raises(CheckpointError, match=r"missing or damaged"):
        policy.load(folder)
    torch_file = policy_of(write_model(tmp_path / "other", "llama_wide"))
    torch_file.ema().average.save(folder)
    with pytest.raises(CheckpointError, match="not those of the model"):
        policy.load(folder)
    assert policy.weights_hash() == now


def test_the_embedded_model_trades_its_weights_and_has_them_back() -> None:
    policy = policy_of(str(embedded_folder("default")))
    policy.ema()
    prompts = [Prompt("add", (Message("user", "57+80"),))]
    before = policy.sample(requests_for(prompts), SamplingParams(24), HOW[1])
    policy.update(samples_of(before), OBJECTIVE, 1e-3)
    digest = policy.weights_hash()
    averaged = policy.ema().sample(requests_for(prompts), SamplingParams(24), HOW[1])
    assert policy.weights_hash() == digest
    drawn = policy.sample(requests_for(prompts), SamplingParams(24), HOW[1])
    first = [done[0].completions[0].logprobs[0] for done in (before, averaged, drawn)]
    assert min(first[0], first[2]) < first[1] < max(first[0], first[2])
