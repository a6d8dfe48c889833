"""What runs as one kernel on a GPU gives what plain torch gives. Without a GPU the kernels are interpreted: `make test-kernels`."""

from __future__ import annotations

import copy
import math
import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch_models
from torch_models import SIZES, groups_of, policy_of, requests_for, samples_of, write_model
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma3TextConfig, LlamaConfig, Qwen2Config

from selftrain.objective import Objective
from selftrain.policies.base import SamplingParams
from selftrain.policies.torch import attention, draw, forward, fused, head, prefixes
from selftrain.policies.torch.attention import Decoding, Scoring, Shared
from selftrain.policies.torch.draw import draw_rows
from selftrain.policies.torch.fused import Heads, fuse_gates, fuse_norms, fuse_rotations
from selftrain.seeds import Stream

pytestmark = pytest.mark.filterwarnings("ignore:Conversion of an array:DeprecationWarning", "ignore:.*encountered in:RuntimeWarning")  # the interpreter's
CUDA = torch.cuda.is_available()
DEVICE = "cuda" if CUDA else "cpu"
ROWS = 20_000 if CUDA else 500
TYPES = [torch.float32, torch.bfloat16] if CUDA else [torch.float32]  # the interpreter multiplies no bfloat16 matrices
needs_triton = pytest.mark.skipif(not CUDA and os.environ.get("TRITON_INTERPRET") != "1", reason="needs a CUDA device, or `make test-kernels`")
WINDOW: dict[str, Any] = {"head_dim": 16, "sliding_window": 8, "query_pre_attn_scalar": 16}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES, head_dim=16),
    "qwen2": Qwen2Config(**SIZES | {"hidden_size": 64}),
    "gemma2": Gemma2Config(**SIZES, **WINDOW),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOW, layer_types=["sliding_attention", "full_attention"]),
}


@pytest.fixture
def kernels() -> Any:
    from selftrain.policies.torch import kernels

    return kernels


@needs_triton
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("vocabulary", [50, 9001])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_draws_are_those_of_torch(kernels: Any, vocabulary: int, dtype: torch.dtype, temperature: float) -> None:
    generator = torch.Generator().manual_seed(vocabulary)
    logits = (3 * torch.randn(40, vocabulary + 7, generator=generator)).to(DEVICE, dtype)[:, :vocabulary]
    logits[3, 5:] = -torch.inf
    uniforms = torch.rand(40, dtype=torch.float64, generator=generator)
    uniforms[0], uniforms[1] = 0.0, 1 - 2**-53
    uniforms = uniforms.to(DEVICE)
    tokens, logprobs, entropies, means = kernels.draw(logits, uniforms, temperature, True)
    expected = draw_rows(logits.float(), uniforms, SamplingParams(1, temperature=temperature, certainties=True))
    assert torch.equal(tokens, expected.tokens_B)
    for mine, its in ((logprobs, expected.logprobs_B), (entropies, expected.entropies_B)):
        torch.testing.assert_close(mine, its, atol=1e-4, rtol=1e-5)
    finite = torch.arange(40) != 3
    torch.testing.assert_close((-means - math.log(vocabulary))[finite], expected.certainties_B[finite], atol=1e-4, rtol=1e-5)
    assert len(kernels.draw(logits, uniforms, temperature, False)[3]) == 0


@needs_triton
def test_drawn_tokens_are_as_frequent_as_the_softmax_says(kernels: Any) -> None:
    logits = torch.linspace(-2, 2, 6000, device=DEVICE).roll(3000)[None].expand(ROWS, -1).contiguous()
    uniforms = torch.rand(ROWS, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(DEVICE)
    parts = torch.stack([part.sum() for part in logits[0].softmax(-1).split(600)]).cpu() * ROWS
    found = torch.bincount(kernels.draw(logits, uniforms, 1.0, False)[0].cpu() // 600, minlength=10)
    assert float(((found - parts) ** 2 / parts).sum()) < 27.9  # chi-square of 9 degrees of freedom, p = 0.001


@needs_triton
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_log_probabilities_and_their_gradient_are_those_of_torch(kernels: Any, dtype: torch.dtype, temperature: float) -> None:
    generator = torch.Generator().manual_seed(2)
    logits = (3 * torch.randn(20, 5003, generator=generator)).to(DEVICE, dtype)
    targets, slopes = torch.randint(0, 5003, (20,), generator=generator).to(DEVICE), torch.randn(20, generator=generator).to(DEVICE)
    logprobs, totals = kernels.logprobs(logits, targets, temperature)
    plain = logits.float().clone().requires_grad_()
    expected = (plain / temperature).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    torch.testing.assert_close(logprobs, expected.detach(), atol=1e-4, rtol=1e-5)
    (expected * slopes).sum().backward()
    kernels.slopes_(logits, targets, totals, slopes, temperature)
    assert plain.grad is not None
    rtol = 1e-4 if dtype is torch.float32 else 2 * torch.finfo(dtype).eps
    torch.testing.assert_close(logits.float(), plain.grad, atol=1e-6, rtol=rtol)


@needs_triton
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("kv_heads", "group", "size", "window", "softcap"), [(2, 7, 64, 1 << 40, None), (1, 4, 16, 20, None), (3, 2, 32, 9, 5.0)])
def test_attention_of_a_decode_step_is_that_of_torch(
    kernels: Any, kv_heads: int, group: int, size: int, window: int, softcap: float | None, dtype: torch.dtype
) -> None:
    prompts, places, width, rows, columns = 3, 5, 70, 11, 80
    generator = torch.Generator().manual_seed(3)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE, dtype)

    prompt = [random(prompts + 1, kv_heads, width + 9, size)[:prompts, :, :width] for _ in range(2)]
    own = [random(rows + 2, kv_heads, columns + 5, size)[:rows, :, :columns] for _ in range(2)]
    query = random(rows, 1, kv_heads * group, size).transpose(1, 2)
    places_B = torch.randperm(prompts * places, generator=generator)[:rows].to(DEVICE)
    lengths_P, lengths_B = torch.tensor([70, 3, 0], device=DEVICE), torch.randint(1, columns + 1, (rows,), generator=generator).to(DEVICE)
    layout = Decoding(places_B, places, lengths_P, lengths_B, (width, columns), window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "attends", lambda *_: None)
        keys, values = (Shared(part, mine, layout, True) for part, mine in zip(prompt, own, strict=True))
        expected = layout.attend(query, keys, values, Scoring(0.3, softcap))
    found = kernels.attend(query, tuple(prompt), tuple(own), layout, 0.3, window, softcap)
    tolerance = 1e-5 if dtype is torch.float32 else 3e-2
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@needs_triton
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotary_positions_and_gates_are_those_of_torch_with_their_gradients(kernels: Any, dtype: torch.dtype) -> None:
    from transformers.models.qwen2.modeling_qwen2 import apply_rotary_pos_emb

    generator = torch.Generator().manual_seed(4)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator).to(DEVICE, dtype)

    query, key = random(3, 7, 6, 32).transpose(1, 2), random(3, 7, 2, 32).transpose(1, 2)
    cos, sin, up = random(1, 7, 32), random(1, 7, 32), random(3, 6, 7, 32)
    tolerance = {"atol": 1e-6, "rtol": 1e-6} if dtype is torch.float32 else {"atol": 3e-2, "rtol": 2e-2}

    def compared(mine: Any, plain: Any, *inputs: torch.Tensor) -> None:
        leaves = [[one.detach().clone().requires_grad_() for one in inputs] for _ in range(2)]
        found, expected = mine(*leaves[0]), plain(*leaves[1])
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, **tolerance)
        slopes = [random(*one.shape) for one in expected]
        for outputs in (found, expected):
            torch.autograd.backward(list(outputs), slopes)
        for one, other in zip(*leaves, strict=True):
            torch.testing.assert_close(one.grad, other.grad, **tolerance)

    compared(lambda q, k: kernels.rotate(q, k, cos, sin), lambda q, k: apply_rotary_pos_emb(q, k, cos, sin), query, key)
    compared(lambda g, u: (kernels.gated(g, u),), lambda g, u: (torch.nn.functional.silu(g) * u,), query, up)


@pytest.fixture
def everywhere(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The kernels on this device too, with prompts that rows share as on a GPU, and which of them were called."""
    called: list[str] = []

    class Counted:
        def __getattr__(self, name: str) -> Any:
            called.append(name)
            return getattr(kernels, name)

    counted = Counted()
    monkeypatch.setitem(prefixes.COPIED_TOKENS, DEVICE, 0)
    monkeypatch.setattr(attention, "attends", lambda *_: counted)
    monkeypatch.setattr(draw, "kernels", lambda _: counted)
    monkeypatch.setattr(head, "kernels", lambda _: counted)
    return called


@needs_triton
@pytest.mark.parametrize("family", list(FAMILIES))
def test_a_policy_draws_and_learns_with_them_what_it_does_without(
    family: str, tmp_path: Path, kernels: Any, everywhere: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(torch_models.FAMILIES, family, FAMILIES[family])
    source = write_model(tmp_path, family)
    options = {"device": DEVICE, "dtype": "float32"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(attention, "attends", lambda *_: None)
        for module in (draw, head):
            patch.setattr(module, "kernels", lambda _: None)
        patch.setattr(forward, "fuse", lambda _: None)
        plain = policy_of(source, options)
        expected = plain.sample(requests_for(), SamplingParams(12), Stream(5))
        samples = samples_of(groups_of(plain))
        its = plain.update(samples, Objective(), 1e-2)
    fast = policy_of(source, options)
    fuse_norms(fast.forward.running)
    layers = len(fast.forward.running.get_decoder().layers)
    assert fuse_rotations(fast.forward.running, kernels) == layers
    assert fuse_gates(fast.forward.running, kernels) == (0 if family.startswith("gemma") else layers)  # Gemma's gate is another
    found = fast.sample(requests_for(), SamplingParams(12), Stream(5))
    for group, other in zip(found, expected, strict=True):
        for done, same in zip(group.completions, other.completions, strict=True):
            assert done.token_ids == same.token_ids
            assert done.logprobs == pytest.approx(same.logprobs, abs=1e-4)
            assert done.entropies == pytest.approx(same.entropies, abs=1e-4)
    mine = fast.update(samples, Objective(), 1e-2)
    assert (mine.loss, mine.grad_norm) == pytest.approx((its.loss, its.grad_norm), rel=1e-4)
    assert {"attend", "draw", "logprobs", "slopes_"} <= set(everywhere)


@pytest.mark.parametrize(("family", "norms"), [("llama", 5), ("qwen2", 5), ("qwen3", 9), ("gemma2", 0), ("gemma3", 0), ("gpt2", 0)])
def test_norms_that_torch_has_are_replaced_and_change_nothing(family: str, norms: int, tmp_path: Path) -> None:
    """Gemma's multiply by 1 + weight: they stay."""
    source = write_model(tmp_path, family)
    plain, fast = policy_of(source), policy_of(source)
    assert fuse_norms(fast.forward.running) == norms
    (mine,), (its,) = ([policy.update(samples_of(groups_of(plain)), Objective(), 1e-2)] for policy in (fast, plain))
    assert (mine.loss, mine.grad_norm) == pytest.approx((its.loss, its.grad_norm), rel=1e-4)
    groups = groups_of(plain)
    for mine_P, its_P in zip(fast.logprobs(groups, 1.0), plain.logprobs(groups, 1.0), strict=True):
        for mine_T, its_T in zip(mine_P, its_P, strict=True):
            assert mine_T == pytest.approx(its_T, abs=1e-4)


def test_a_cpu_has_none() -> None:
    assert fused.kernels("cpu") is None


def fake_kernels(monkeypatch: pytest.MonkeyPatch, **functions: Any) -> None:
    """Stand in for the kernels of a GPU, on this CPU."""
    forget()
    errors = type("Errors", (), {"TritonError": OSError})
    monkeypatch.setattr(fused, "import_module", lambda name: SimpleNamespace(**functions) if name.endswith("kernels") else errors)
    monkeypatch.setattr(fused.torch, "device", lambda _type: "cpu")


CACHED = (fused.kernels, fused.attention_for)


def forget() -> None:
    for cached in CACHED:
        cached.cache_clear()


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    forget()


def right_draw(logits: torch.Tensor, *_: Any) -> Any:
    return logits.argmax(-1), logits.log_softmax(-1).amax(-1), None, None


def right_logprobs(logits: torch.Tensor, targets: torch.Tensor, *_: Any) -> Any:
    return logits.log_softmax(-1).gather(-1, targets[:, None])[:, 0], None


def refuse(*_: Any) -> Any:
    raise OSError("out of resource: shared memory\nmore")


@pytest.mark.parametrize(
    ("draw", "logprobs", "words"),
    [
        (refuse, right_logprobs, "out of resource: shared memory"),
        (right_draw, lambda logits, *_: (logits[:, 0], None), "off by [0-9]"),
        (right_draw, lambda logits, *_: (logits[:, 0] * torch.nan, None), "off by nan"),
    ],
)
def test_kernels_that_fail_are_left_alone_after_a_warning(draw: Any, logprobs: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_kernels(monkeypatch, draw=draw, logprobs=logprobs)
    with pytest.warns(RuntimeWarning, match=f"Triton kernels cannot be used on this GPU .{words}.*: plain torch is used"):
        assert fused.kernels("cuda") is None
    assert fused.kernels("cuda") is None  # warned of once


def test_heads_that_do_not_fit_the_card_keep_the_plain_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "kernels", lambda _: SimpleNamespace(attend=refuse))
    monkeypatch.setattr(fused, "import_module", lambda _: type("Errors", (), {"TritonError": OSError}))
    with pytest.warns(RuntimeWarning, match="attention kernel with 7 heads of 64 torch.bfloat16 numbers cannot be used on this GPU .out of resource"):
        assert fused.attention_for(Heads(64, 7, False), torch.bfloat16, "cpu") is None
    assert fused.attention_for(Heads(8, 7, False), torch.bfloat16, "cpu") is None
    assert fused.attention_for(Heads(80, 7, False), torch.bfloat16, "cpu") is None


@needs_triton
def test_logits_far_from_0_lose_no_digits_and_those_that_are_none_are_seen(kernels: Any) -> None:
    logits = (torch.randn(6, 5000, generator=torch.Generator().manual_seed(6)) + 3000).to(DEVICE)
    targets, slopes = torch.arange(6, device=DEVICE), torch.ones(6, device=DEVICE)
    expected = (logits - 3000).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
    logprobs, totals = kernels.logprobs(logits, targets, 1.0)
    torch.testing.assert_close(logprobs, expected, atol=5e-6, rtol=0)  # a float32 at 3000 has steps of 2e-4
    bad = logits.clone()
    kernels.slopes_(logits, targets, totals, slopes, 1.0)
    assert float(logits.sum(-1).abs().max()) < 5e-6
    bad[2, 4500] = torch.nan
    drawn = kernels.draw(bad, torch.full((6,), 0.5, dtype=torch.float64, device=DEVICE), 1.0, False)
    assert drawn[1].isnan().tolist() == [False, False, True, False, False, False]
    assert int(drawn[0].max()) < 5000


@needs_triton
def test_rows_that_are_not_in_use_read_no_more_columns_than_the_others(kernels: Any) -> None:
    """They stand at the last column of the board."""
    keys, values = (torch.randn(2, 1, 80, 16, generator=torch.Generator().manual_seed(at)).to(DEVICE) for at in (1, 2))
    query, prompt = torch.randn(2, 1, 1, 16, generator=torch.Generator().manual_seed(3)).to(DEVICE), torch.zeros(1, 1, 4, 16, device=DEVICE)
    found = []
    for own in (79, 8):
        lengths = torch.tensor([8, own], device=DEVICE)
        layout = Decoding(torch.tensor([0, 1], device=DEVICE), 2, torch.tensor([-79], device=DEVICE), lengths, (4, 8), 1 << 40)
        found.append(kernels.attend(query, (prompt, prompt), (keys[:, :, :8], values[:, :, :8]), layout, 1.0, 1 << 40, None))
    assert torch.equal(*found)


@needs_triton
def test_a_model_with_fused_layers_is_copied_saved_and_freed(kernels: Any, tmp_path: Path) -> None:
    model = policy_of(write_model(tmp_path / "a"), {"device": DEVICE, "dtype": "float32"}).forward.running
    assert (fuse_norms(model), fuse_rotations(model, kernels), fuse_gates(model, kernels)) == (5, 2, 2)
    ids = torch.tensor([[5, 6, 7]], device=DEVICE)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.01)
        assert not torch.equal(copied(ids).logits, model(ids).logits)  # each has its own weights
    copied.save_pretrained(tmp_path / "b")
    assert isinstance(copied.model.norm, type(AutoModelForCausalLM.from_pretrained(tmp_path / "b").model.norm))
    gone = weakref.ref(copied.model.layers[0].mlp)
    del copied
    assert gone() is None  # without waiting for a collection of cycles


@needs_triton
def test_the_kernels_pass_their_own_check(kernels: Any) -> None:
    device = torch.device(DEVICE)
    assert fused.logprobs_error(kernels, device) < 1e-4
    for heads in (Heads(16, 1, False), Heads(64, 7, True), Heads(256, 20, False)):
        assert fused.attention_error(kernels, heads, torch.empty(0, device=device)) < 1e-4


def test_without_triton_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "import_module", lambda _: (_ for _ in ()).throw(ImportError()))
    assert fused.kernels("cuda") is None
    assert fused.failures() == (RuntimeError, ValueError, TypeError)
