"""Norms and rotary positions in fewer passes: transformers' own numbers, forward and backward."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch_models import FAMILIES, groups_of, policy_of, samples_of, write_model
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb

from selftrain.objective import Objective
from selftrain.policies.torch import forward
from selftrain.policies.torch.passes import Norm, Rotation, norm, rotate, turned


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.empty(shape, dtype=torch.float64).normal_(generator=torch.Generator().manual_seed(seed + sum(shape))).requires_grad_()


def test_rotary_positions_are_those_of_transformers() -> None:
    """Also where the two halves of cosines and sines differ."""
    query, key, cos, sin = numbers(2, 4, 3, 8), numbers(2, 2, 3, 8), numbers(2, 3, 8).detach(), numbers(2, 3, 8, seed=1).detach()
    mine, its = rotate(query, key, cos, sin), apply_rotary_pos_emb(query, key, cos, sin)
    for one, other in zip(mine, its, strict=True):
        torch.testing.assert_close(one, other)
    slopes = [numbers(2, heads, 3, 8, seed=2).detach() for heads in (4, 2)]
    for one, other in zip(torch.autograd.grad(mine, (query, key), slopes), torch.autograd.grad(its, (query, key), slopes), strict=True):
        torch.testing.assert_close(one, other)
    with torch.no_grad():
        assert torch.equal(rotate(query, key, cos, sin)[0], mine[0])
    assert torch.autograd.gradcheck(Rotation.apply, (query, cos[:, None], sin[:, None]))
    assert not torch.equal(turned(query, cos[:, None], sin[:, None], 1), turned(query, cos[:, None], sin[:, None], -1))


@pytest.mark.parametrize("scale", [1.0, 100.0, 1e-3])
def test_norms_are_those_of_transformers(scale: float) -> None:
    module = LlamaRMSNorm(8, 1e-5)
    with torch.no_grad():
        module.weight.copy_(numbers(8).detach())
    states, slope = (scale * numbers(2, 3, 8).detach()).float().requires_grad_(), numbers(2, 3, 8, seed=3).detach().float()
    mine, its = norm(module, states), module(states)
    torch.testing.assert_close(mine, its)
    wanted = (states, module.weight)
    for one, other in zip(torch.autograd.grad(mine, wanted, slope), torch.autograd.grad(its, wanted, slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5 * float(other.abs().max()))
    with torch.no_grad():
        torch.testing.assert_close(norm(module, states), mine)


def test_the_gradient_of_a_norm_is_that_of_finite_differences() -> None:
    states, weight = numbers(2, 3, 8), numbers(8)
    assert torch.autograd.gradcheck(lambda one, other: Norm.apply(one, other, 1e-5), (states, weight))
    frozen = SimpleNamespace(weight=weight.detach(), variance_epsilon=1e-5)
    (mine,) = torch.autograd.grad(norm(frozen, states).sum(), states)
    (whole,) = torch.autograd.grad(Norm.apply(states, weight, 1e-5).sum(), states)
    assert torch.equal(mine, whole)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_policy_draws_and_learns_what_it_does_with_transformers_own(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path, family)
    mine = policy_of(source)
    monkeypatch.setattr(forward, "fuse", lambda _: None)
    its = policy_of(source)
    replaced = [module for module in mine.forward.model.modules() if type(module).__mro__[1].__name__ == type(module).__name__]
    assert bool(replaced) == (family != "gpt2")
    drawn, expected = groups_of(mine, temperature=0.5), groups_of(its, temperature=0.5)
    assert [[done.token_ids for done in group.completions] for group in drawn] == [[done.token_ids for done in group.completions] for group in expected]
    samples = samples_of(expected)
    gradients = []
    for policy in (mine, its):
        policy.learner.accumulate(samples, Objective())
        gradients.append({name: weight.grad for name, weight in policy.learner.weights.items() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[1].items():
        assert float((gradients[0][name] - gradient).abs().max()) < 1e-5 * max(1.0, float(gradient.abs().max())), name
