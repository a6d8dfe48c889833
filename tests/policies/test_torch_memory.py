"""What the update keeps in memory: micro-batches by what a token keeps, one block of gradients, one buffer of logits."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch_models import FAMILIES, groups_of, policy_of, samples_of, write_model

from selftrain.objective import Objective
from selftrain.policies.torch import memory
from selftrain.policies.torch.attention import Joined, Learning, Scoring, Shared, learning_masks
from selftrain.policies.torch.head import Head
from selftrain.policies.torch.logprobs import token_logprobs
from selftrain.policies.torch.memory import default_microbatch_tokens, kept_bytes, one_gradient
from selftrain.policies.torch.trees import Packed, TokenSequence, alone


def test_what_a_pass_keeps_by_hand() -> None:
    """exp(W table[ids]), 4 numbers a token: the ids (8 bytes), the looked up row (16), the result (16), that of the second exp (8).

    Weights and views count nothing.
    """
    layers = torch.nn.Sequential(torch.nn.Embedding(5, 4), torch.nn.Linear(4, 4))
    forward: Any = SimpleNamespace(running=layers, hidden=lambda ids: layers(ids).exp()[:, :, :2].exp()[..., None], pad_id=0, device=torch.device("cpu"))
    assert kept_bytes(forward, 64) == 64 * (8 + 16 + 16 + 8)


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
def test_what_a_pass_keeps_grows_with_its_tokens(family: str, tmp_path: Path) -> None:
    policy, half = (policy_of(write_model(tmp_path, family), {"dtype": dtype}) for dtype in ("float32", "bfloat16"))
    short, middle, long = (kept_bytes(policy.forward, tokens) for tokens in (32, 64, 96))
    assert long - middle == pytest.approx(middle - short, rel=0.02)
    assert 0.45 < (kept_bytes(half.forward, 64) - kept_bytes(half.forward, 32)) / (middle - short) < 1


def test_tokens_of_a_pass_where_none_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    policy = policy_of(source)
    each = (kept_bytes(policy.forward, 64) - kept_bytes(policy.forward, 32)) / 32
    assert default_microbatch_tokens(policy.forward) == 2048
    monkeypatch.setattr(memory, "CPU_ACTIVATIONS_MIB", 8)
    weights = sum(weight.numel() for weight in policy.learner.weights.values())
    assert default_microbatch_tokens(policy.forward) == int(((8 << 20) + 4 * weights) / 2 / each) == policy.learner.tokens_per_microbatch
    half = policy_of(source, {"dtype": "bfloat16"})  # its copy of the weights and the copy's gradient take that room
    assert default_microbatch_tokens(half.forward) == int((4 << 20) / half.learner.kept_per_token)
    monkeypatch.setattr(memory, "CPU_ACTIVATIONS_MIB", 0)
    assert default_microbatch_tokens(half.forward) == 64
    assert policy_of(source, update={"tokens_per_microbatch": 100}).learner.tokens_per_microbatch == 100
    assert policy_of(source, {"gradient_checkpointing": True, "dtype": "bfloat16"}).learner.tokens_per_microbatch == 64


def test_activations_are_recomputed_where_one_sequence_would_keep_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_model(tmp_path)
    kept, asked, never = policy_of(source), policy_of(source), policy_of(source, {"gradient_checkpointing": False})
    samples = samples_of(groups_of(kept))
    longest = max(len(sample.prompt_ids) + len(sample.token_ids) - 1 for sample in samples)  # the last token is not run
    is_backward: list[bool] = []  # of each run of a layer's first module
    for policy in (kept, asked, never):
        policy.forward.running.model.layers[0].input_layernorm.register_forward_hook(lambda *_: is_backward.append(torch._C._current_graph_task_id() != -1))
    expected = kept.learner.accumulate(samples, Objective())
    assert not any(is_backward)
    for limit, is_recomputed in ((longest * kept.learner.kept_per_token + 1, False), (longest * kept.learner.kept_per_token - 1, True)):
        monkeypatch.setattr("selftrain.policies.torch.learner.sequence_room", lambda _, limit=limit: limit)
        is_backward.clear()
        assert asked.learner.accumulate(samples, Objective()).loss == pytest.approx(expected.loss, abs=1e-5)
        assert any(is_backward) is is_recomputed
    is_backward.clear()
    never.learner.accumulate(samples, Objective())
    assert not any(is_backward)
    for (name, mine), its in zip(asked.learner.weights.items(), kept.learner.weights.values(), strict=True):
        assert mine.grad is not None
        assert its.grad is not None
        assert torch.allclose(mine.grad, 2 * its.grad, atol=1e-5), name
    assert not asked.forward.running.training


def test_gradients_lie_in_one_block_and_those_that_are_there_stay(tmp_path: Path) -> None:
    policy = policy_of(write_model(tmp_path))
    weights = list(policy.learner.weights.values())
    own = weights[0].grad = torch.ones_like(weights[0])
    one_gradient(weights)
    assert weights[0].grad is own
    gradients = [weight.grad for weight in weights[1:] if weight.grad is not None]
    assert len(gradients) == len(weights) - 1
    assert all(gradient.is_contiguous() and not gradient.any() and gradient.data_ptr() % 64 == gradients[0].data_ptr() % 64 for gradient in gradients)
    assert len({gradient.untyped_storage().data_ptr() for gradient in gradients}) == 1
    gradients[0].add_(1)
    assert not any(gradient.any() for gradient in gradients[1:])
    policy.update(samples_of(groups_of(policy)), Objective(), 1e-3)
    assert all(weight.grad is None for weight in weights)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_gives_log_probabilities_and_their_gradient(family: str, dtype: str, tmp_path: Path) -> None:
    """Against autograd through the log-softmax, at a temperature."""
    policy = policy_of(write_model(tmp_path, family), {"dtype": dtype})
    forward, generator = policy.forward, torch.Generator().manual_seed(1)
    hidden_KH = torch.randn((7, forward.config.hidden_size), generator=generator).to(getattr(torch, dtype))
    targets_K, slopes_K = torch.randint(48, (7,), generator=generator), torch.randn(7, generator=generator)
    gradients = []
    for closed in (True, False):
        policy.learner.optimizer.zero_grad(set_to_none=True)
        leaf_KH = hidden_KH.clone().requires_grad_()
        if closed:
            head = Head(forward, leaf_KH, targets_K, 0.7)
            logprobs_K = head.logprobs_K
            head.backward(slopes_K)
        else:
            expected_K = token_logprobs(forward, leaf_KH, targets_K, 0.7)
            (slopes_K * expected_K).sum().backward()
        weight = forward.model.get_output_embeddings().weight
        assert leaf_KH.grad is not None
        assert weight.grad is not None
        gradients.append((leaf_KH.grad.float(), weight.grad))
    torch.testing.assert_close(logprobs_K, expected_K.detach(), atol=1e-5, rtol=1e-5)
    tolerance = {"float32": 1e-5, "bfloat16": 3e-2}[dtype]
    for mine, its in zip(*gradients, strict=True):
        assert float((mine - its).abs().max()) < tolerance * float(its.abs().max())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [2, 6])
def test_keys_behind_prompts_are_made_again_for_the_backward_pass(heads: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same gradient, bit for bit, as where they are kept."""
    generator = torch.Generator().manual_seed(2)
    sizes = ((3, heads, 5, 8), (2, 2, 150, 8), (3, 2, 5, 8), (2, 2, 150, 8), (3, 2, 5, 8))  # queries; keys and values of 2 prompts and of 3 sequences
    parts = [torch.randn(size, generator=generator).to(dtype).requires_grad_() for size in sizes]
    prompts_B = torch.tensor([0, 1, 1])
    packed = Packed.of([alone(at, TokenSequence((1,), (4, 5, 6, 7, 8, 9), [5])) for at in range(3)], 0, prompts_B.device)
    layout = Learning(prompts_B, learning_masks([False], prompts_B, torch.tensor([150, 90]), 150, packed, 1 << 40))
    times_made: list[Joined] = []
    made = Joined.made
    monkeypatch.setattr(Joined, "made", lambda joined: times_made.append(joined) or made(joined))
    out = layout.attend(parts[0], Shared(parts[1], parts[2], layout, False), Shared(parts[3], parts[4], layout, False), Scoring(0.3))
    assert len(times_made) == 2
    gradients = torch.autograd.grad(out.float().square().sum(), parts)
    assert len(times_made) == 4
    full = [torch.cat([parts[at].index_select(0, prompts_B), parts[at + 1]], 2).repeat_interleave(heads // 2, 1) for at in (1, 3)]
    plain = torch.nn.functional.scaled_dot_product_attention(parts[0], *full, attn_mask=layout.masks[False], scale=0.3).transpose(1, 2)
    expected = torch.autograd.grad(plain.float().square().sum(), parts)
    assert torch.equal(out, plain)
    assert all(torch.equal(mine, its) for mine, its in zip(gradients, expected, strict=True))
