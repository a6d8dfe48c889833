"""AdamW with 8-bit states: close to the 32-bit one, a quarter of its memory, kept and taken back bit for bit."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch_models import groups_of, policy_of, samples_of, write_model

from selftrain.config_load import load_config
from selftrain.errors import CheckpointError, ConfigError, MissingExtraError
from selftrain.objective import Objective
from selftrain.policies.torch import TorchPolicy
from selftrain.policies.torch.optimizer import state_of

SMALL = {"optimizer": "adamw_8bit"}


@pytest.fixture(autouse=True)
def _library() -> None:
    pytest.importorskip("bitsandbytes")


def learn(policy: TorchPolicy, begin: int, end: int, rate: float = 1e-3) -> list[Any]:
    return [policy.update(samples_of(groups_of(policy, step=step)), Objective(), rate) for step in range(begin, end)]


def flat(policy: TorchPolicy) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in policy.learner.weights.values()])


@pytest.mark.parametrize("options", [{}, {"lora_rank": 48, "lora_alpha": 8.0}], ids=str)
def test_a_resumed_policy_goes_on_bit_for_bit(options: dict[str, Any], tmp_path: Path) -> None:
    source = write_model(tmp_path / "start", "llama_wide")
    policy = policy_of(source, options, SMALL)
    learn(policy, 0, 2)
    policy.save(tmp_path / "kept")
    policy.save_optimizer(tmp_path / "kept")
    kept = load_file(tmp_path / "kept" / "optimizer.safetensors")
    assert {kept[name].dtype for name in kept if name.startswith("state1/")} == {torch.uint8, torch.float32}
    resumed = policy_of(source, options, SMALL)
    resumed.load(tmp_path / "kept")
    for mine, its in zip(policy.learner.weights.values(), resumed.learner.weights.values(), strict=True):
        expected, found = state_of(policy.learner.optimizer, mine), state_of(resumed.learner.optimizer, its)
        assert found[0] == expected[0] == 2
        assert all(torch.equal(found[1][name], value) for name, value in expected[1].items())
    assert learn(resumed, 2, 5) == learn(policy, 2, 5)
    assert torch.equal(flat(resumed), flat(policy))


def test_the_first_step_is_that_of_32_bits(tmp_path: Path) -> None:
    """Adam's first step is the sign of the gradient times the rate, whatever the moments are rounded to."""
    source = write_model(tmp_path, "llama_wide")
    policies = [policy_of(source, None, update) for update in ({}, SMALL)]
    start = flat(policies[0])
    samples = samples_of(groups_of(policies[0]))
    full, small = (policy.update(samples, Objective(), 1e-3) for policy in policies)
    assert full == small
    moved = [flat(policy) - start for policy in policies]
    assert torch.allclose(moved[0], moved[1], atol=2e-6)
    assert float(moved[0].abs().median()) == pytest.approx(1e-3, rel=0.01)


def test_later_steps_stay_close_to_32_bits(tmp_path: Path) -> None:
    source = write_model(tmp_path, "llama_wide")
    policies = [policy_of(source, None, update) for update in ({}, SMALL)]
    start = flat(policies[0])
    batches = [samples_of(groups_of(policies[0], step=step)) for step in range(6)]
    for at, samples in enumerate(batches):
        for policy in policies:
            policy._version = samples[0].version
            policy.update(samples, Objective(), 1e-4 if at else 1e-3)
    moved = [flat(policy) - start for policy in policies]
    assert float(torch.nn.functional.cosine_similarity(moved[0], moved[1], dim=0)) > 0.99


def test_its_memory_is_about_two_bytes_a_weight(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path, "llama_wide"), None, SMALL)
    learn(policy, 0, 1)
    matrices = [weight for weight in policy.learner.weights.values() if weight.numel() >= 4096]
    assert len(matrices) == 6  # gate, up and down of two layers; everything else is small and stays in 32 bits
    bytes_used = sum(value.nbytes for weight in matrices for value in state_of(policy.learner.optimizer, weight)[1].values())
    assert bytes_used == sum(2 * weight.numel() + 2 * 4 * weight.numel() // 256 for weight in matrices)


def test_moments_of_another_optimizer_are_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "start", "llama_wide")
    policy = policy_of(source, None, SMALL)
    learn(policy, 0, 1)
    policy.save(tmp_path / "kept")
    policy.save_optimizer(tmp_path / "kept")
    fresh = policy_of(source)
    before = fresh.weights_hash()
    with pytest.raises(CheckpointError, match=r"its optimizer is adamw_8bit and update\.optimizer is adamw"):
        fresh.load(tmp_path / "kept")
    record = tmp_path / "kept" / "learner.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"optimizer": "adamw"}))
    with pytest.raises(CheckpointError, match="exp_avg of"):
        fresh.load(tmp_path / "kept")
    assert fresh.weights_hash() == before


def test_without_the_library_it_is_refused_at_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"install selftrain\[optimizers\]"):
        policy_of(write_model(tmp_path), None, SMALL)


def test_paged_states_need_a_gpu() -> None:
    with pytest.raises(ConfigError, match="paged states live in CUDA managed memory"):
        load_config(overrides={"update.optimizer": "adamw_paged_8bit"})


def test_the_toy_policy_has_one_optimizer() -> None:
    with pytest.raises(ConfigError, match="the toy policy has one optimizer"):
        load_config(overrides={"policy.model": "toy", "update.optimizer": "adamw_8bit"})
