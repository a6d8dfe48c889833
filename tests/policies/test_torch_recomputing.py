"""Activations that are made again in the backward pass: from the first update on, and with the gradient of those that are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from test_torch_learning import REINFORCE, gradient_of, largest_gap
from torch_models import FAMILIES, NEWER, groups_of, policy_of, samples_of, write_model

from selftrain.errors import ModelError
from selftrain.policies.torch import TorchPolicy, recomputing

RANDOM = ("opt", "mixtral", "phimoe", "biogpt")
"""Families that draw random numbers in training mode: dropout, jitter of the router, whole layers left out."""


def runs_of(policy: TorchPolicy) -> list[bool]:
    """Filled in by each run of something inside the first layer: whether it was a part of a backward pass."""
    found: list[bool] = []
    inside = [
        module
        for module in recomputing.layers_of(policy.forward.running)[0].modules()
        if isinstance(module, torch.nn.LayerNorm) or "Norm" in type(module).__name__
    ]
    inside[0].register_forward_hook(lambda *_: found.append(torch._C._current_graph_task_id() != -1))
    return found


def bytes_kept(policy: TorchPolicy, samples: Any) -> int:
    """Bytes that an update keeps for its backward passes, what several operations keep counted several times."""
    sizes: list[int] = []

    def count(tensor: torch.Tensor) -> torch.Tensor:
        sizes.append(tensor.nbytes)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        policy.learner.accumulate(samples, REINFORCE)
    return sum(sizes)


@pytest.mark.parametrize("is_asked", [True, False], ids=["asked for", "by itself"])
@pytest.mark.parametrize("family", [*FAMILIES, *RANDOM, *NEWER])
def test_every_update_recomputes_the_first_one_too(family: str, is_asked: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_asked:
        monkeypatch.setattr("selftrain.policies.torch.learner.sequence_room", lambda _: 100)
    policy = policy_of(write_model(tmp_path, family), {"gradient_checkpointing": True} if is_asked else {})
    runs = runs_of(policy)
    for step in range(3):
        samples = samples_of(groups_of(policy, step=step))
        runs.clear()
        policy.update(samples, REINFORCE, 1e-3)
        assert any(runs)
        assert not any(module.training for module in policy.forward.running.modules())
    assert not [layer for layer in recomputing.layers_of(policy.forward.running) if "forward" in vars(layer)]


def test_the_first_update_keeps_no_more_than_the_second(tmp_path: Path) -> None:
    source = write_model(tmp_path, "llama_wide")
    saving, plain = policy_of(source, {"gradient_checkpointing": True}), policy_of(source, {"gradient_checkpointing": False})
    samples = samples_of(groups_of(plain, max_new_tokens=60))
    first, second, whole = bytes_kept(saving, samples), bytes_kept(saving, samples), bytes_kept(plain, samples)
    assert first == second
    assert first < 0.5 * whole


@pytest.mark.parametrize("family", RANDOM)
def test_nothing_is_random_where_activations_are_recomputed(family: str, tmp_path: Path) -> None:
    source = write_model(tmp_path, family)
    plain, saving = policy_of(source), policy_of(source, {"gradient_checkpointing": True})
    samples = samples_of(groups_of(plain))
    expected = gradient_of(plain, samples, REINFORCE)
    for _ in range(3):
        assert largest_gap(gradient_of(saving, samples, REINFORCE), expected) < 5e-6


def test_a_model_without_layers_to_recompute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    monkeypatch.setattr(recomputing, "GradientCheckpointingLayer", torch.nn.Bilinear)
    with pytest.raises(ModelError, match="no layers of a model of type 'llama'"):
        policy_of(source, {"gradient_checkpointing": True})
    monkeypatch.setattr("selftrain.policies.torch.learner.sequence_room", lambda _: 100)
    policy = policy_of(source)
    assert policy.update(samples_of(groups_of(policy)), REINFORCE, 1e-3).grad_norm > 0
