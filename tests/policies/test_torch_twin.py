"""bfloat16 arithmetic: a twin is run, float32 weights are learned."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch_learning import gradient_of
from torch_models import FAMILIES, groups_of, policy_of, samples_of, write_model

from selftrain.objective import Objective
from selftrain.policies.torch import TorchPolicy

REINFORCE = Objective()
HALF: dict[str, Any] = {"dtype": "bfloat16"}
ADAPTERS = pytest.param({**HALF, "lora_rank": 4, "lora_alpha": 8.0}, marks=pytest.mark.filterwarnings("ignore"))


def assert_twin_follows(policy: TorchPolicy) -> None:
    mine, its = dict(policy.forward.model.named_parameters()), dict(policy.forward.running.named_parameters())
    assert mine.keys() == its.keys()
    for name, weight in mine.items():
        if ".lora_" in name:
            assert its[name] is weight
        else:
            assert its[name].dtype is torch.bfloat16
            assert torch.equal(its[name], weight.to(torch.bfloat16))


@pytest.mark.parametrize("options", [HALF, ADAPTERS], ids=["weights", "lora"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_twin_is_the_cast_of_the_weights_after_an_update_and_after_a_load(family: str, options: dict[str, Any], tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path / "model", family), options)
    assert_twin_follows(policy)
    before = policy.weights_hash()
    policy.save(tmp_path / "kept")
    policy.save_optimizer(tmp_path / "kept")
    policy.update(samples_of(groups_of(policy)), REINFORCE, 1e-1)
    assert policy.weights_hash() != before
    assert_twin_follows(policy)
    policy.load(tmp_path / "kept")
    assert policy.weights_hash() == before
    assert_twin_follows(policy)


@pytest.mark.parametrize("family", FAMILIES)
def test_its_gradient_is_the_float32_one_but_for_rounding(family: str, tmp_path: Path) -> None:
    source = write_model(tmp_path, family)
    exact, half = policy_of(source), policy_of(source, HALF)
    samples = samples_of(groups_of(exact))
    expected, found = gradient_of(exact, samples, REINFORCE), gradient_of(half, samples, REINFORCE)
    assert {weight.dtype for weight in found.values()} == {torch.float32}
    mine, its = (torch.cat([gradient.flatten() for _, gradient in sorted(one.items())]) for one in (expected, found))
    assert torch.nn.functional.cosine_similarity(mine, its, dim=0) > 0.99
    assert all(weight.grad is None for weight in half.forward.running.parameters())


def test_gradients_of_micro_batches_are_added_up_in_float32(tmp_path: Path) -> None:
    """A thousand equal gradients: in bfloat16 their sum would stop to grow at 256 times the first."""
    policy = policy_of(write_model(tmp_path), HALF)
    (master, half), *_ = policy.forward.twin.pairs if policy.forward.twin else []
    for _ in range(1000):
        half.sum().backward()
    assert master.grad is not None
    assert torch.equal(master.grad, torch.full_like(master.grad, 1000.0))


def test_what_is_saved_is_float32_and_goes_on_exactly(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path / "model"), HALF)
    policy.update(samples_of(groups_of(policy)), REINFORCE, 1e-3)
    policy.save(tmp_path / "kept")
    policy.save_optimizer(tmp_path / "kept")
    again = policy_of(tmp_path / "kept", HALF)
    again.load(tmp_path / "kept")
    samples = samples_of(groups_of(policy, step=1))
    for one in (policy, again):
        one.update(samples, REINFORCE, 1e-3)
    assert policy.weights_hash() == again.weights_hash()


@pytest.mark.parametrize("options", [HALF, ADAPTERS], ids=["weights", "lora"])
def test_the_frozen_start_samples_and_scores_as_before(options: dict[str, Any], tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path), options)
    groups = groups_of(policy)
    policy.update(samples_of(groups), REINFORCE, 1e-1)
    for group, references in zip(groups, policy.reference_logprobs(groups, 1.0), strict=True):
        for done, reference in zip(group.completions, references, strict=True):
            assert reference == pytest.approx(done.logprobs, abs=0.1)
    if not policy.adapters:
        assert {weight.dtype for weight in policy.start().running.parameters()} == {torch.bfloat16}


def test_checkpointing_recomputes_the_twin(tmp_path: Path) -> None:
    source = write_model(tmp_path)
    plain, saving = policy_of(source, HALF), policy_of(source, {**HALF, "gradient_checkpointing": True})
    samples = samples_of(groups_of(plain))
    mine, its = (torch.cat([g.flatten() for _, g in sorted(gradient_of(one, samples, REINFORCE).items())]) for one in (plain, saving))
    assert torch.nn.functional.cosine_similarity(mine, its, dim=0) > 0.99
    assert not saving.forward.running.training
