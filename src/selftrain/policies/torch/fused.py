"""What runs as one kernel on a GPU: the draw, the attention of a decode step, log-probabilities with their gradient, and of the layers norms,
rotary positions and gates (kernels.py).

Everything here has a plain version that a CPU always uses, and a GPU where Triton is missing or its kernels do not give what plain torch gives.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import torch

from selftrain.policies.torch.loading import first_line

LEAST_HEAD_SIZE, MOST_HEAD_SIZE = 16, 256
SCALES = (1.0, 100.0, 0.001)
"""of the states that modules are compared on: clamps and epsilons show at one of them"""
ROTATION = "apply_rotary_pos_emb"
"""The name of the function in transformers' modules that turns queries and keys by their positions."""


@cache
def kernels(device_type: str) -> ModuleType | None:
    """The Triton kernels, or None: on a CPU, without Triton, or, after a warning, where they fail on this card."""
    if device_type != "cuda":
        return None
    try:
        found = import_module("selftrain.policies.torch.kernels")
    except ImportError:
        return None
    return found if are_right("Triton kernels", partial(logprobs_error, found, torch.device(device_type))) else None


def attends(query_BHQD: torch.Tensor, values_BKTD: torch.Tensor, softcap: float | None) -> ModuleType | None:
    """The kernels, where they hold these heads."""
    if values_BKTD.shape[-1] != query_BHQD.shape[-1]:
        return None
    heads = Heads(query_BHQD.shape[-1], query_BHQD.shape[1] // values_BKTD.shape[1], softcap is not None)
    return attention_for(heads, query_BHQD.dtype, query_BHQD.device.type)


class Heads(NamedTuple):
    """size: of each. group: query heads of each key-value head."""

    size: int
    group: int
    has_softcap: bool


@cache
def attention_for(heads: Heads, dtype: torch.dtype, device_type: str) -> ModuleType | None:
    """The kernels, where they hold such heads: of a power of two from 16 to 256 numbers, and fitting the card's shared memory."""
    found, size = kernels(device_type), heads.size
    if found is None or not LEAST_HEAD_SIZE <= size <= MOST_HEAD_SIZE or size & (size - 1):
        return None
    name = f"the attention kernel with {heads.group} heads of {size} {dtype} numbers"
    return found if are_right(name, partial(attention_error, found, heads, torch.empty(0, dtype=dtype, device=device_type))) else None


def are_right(name: str, error_of: Callable[[], float]) -> bool:
    """Whether kernels give what torch gives, but for rounding; a warning, where not."""
    try:
        error = error_of()
        words = f"off by {error:.3g}" if not error < 0.05 else ""
    except failures() as failure:
        words = first_line(failure)
    if words:
        warnings.warn(f"{name} cannot be used on this GPU ({words}): plain torch is used, slower and with the same results", RuntimeWarning, stacklevel=2)
    return not words


def failures() -> tuple[type[Exception], ...]:
    """What may be raised where a kernel cannot be made or run."""
    try:
        return (RuntimeError, ValueError, TypeError, import_module("triton.errors").TritonError)
    except ImportError:
        return (RuntimeError, ValueError, TypeError)


def logprobs_error(found: ModuleType, device: torch.device) -> float:
    """The largest distance in nats between log-probabilities by the kernels and by torch: of targets and of what is drawn."""
    targets_K = torch.arange(4, device=device)
    logits_KV, uniforms_K = probe(torch.empty(0, device=device), 4, 5000), (targets_K.double() + 0.5) / 4
    tokens_K, drawn_K, _, _ = found.draw(logits_KV, uniforms_K, 1.0, False)
    mine_K, _ = found.logprobs(logits_KV, targets_K, 1.0)
    expected_KV = logits_KV.log_softmax(-1)
    errors = [(values - expected_KV.gather(-1, ids[:, None])[:, 0]).abs().max() for values, ids in ((drawn_K, tokens_K), (mine_K, targets_K))]
    return float(torch.stack(errors).amax())  # not a number, if one of them is


def attention_error(found: ModuleType, heads: Heads, like: torch.Tensor) -> float:
    """The largest distance between attention by the kernel and by torch: one sequence with 3 keys of its prompt and 2 of its own."""
    query, keys, values = (probe(like, 1, count, length, heads.size) for count, length in ((heads.group, 1), (1, 5), (1, 5)))
    parts = [(keys[:, :, part], values[:, :, part]) for part in (slice(0, 3), slice(3, 5))]
    zero = torch.zeros(1, dtype=torch.int64, device=like.device)
    layout = SimpleNamespace(places_B=zero, num_places=1, lengths_P=zero + 3, lengths_B=zero + 2)
    mine_1HD = found.attend(query, *parts, layout, 0.25, sys.maxsize, 5.0 if heads.has_softcap else None)[:, 0]
    scores = 0.25 * query.float() @ keys.float().transpose(-1, -2)
    expected_1HD = ((5 * torch.tanh(scores / 5) if heads.has_softcap else scores).softmax(-1) @ values.float())[:, :, 0]
    return float((mine_1HD.float() - expected_1HD).abs().max())


def fuse(model: Any) -> None:
    """Let norms, rotary positions and gated MLPs run as one kernel each, backward too, where that gives what they give.

    In bfloat16 what was rounded after every operation is then rounded once. Weights, names and the state that is saved stay as they are.
    """
    fast = kernels(next(model.parameters()).device.type)
    fuse_norms(model)
    if fast is not None:
        fuse_rotations(model, fast)
        fuse_gates(model, fast)


def fuse_norms(model: Any) -> int:
    """Root-mean-square norms that torch's own function computes; how many."""
    fused = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        if not type(module).__name__.endswith("RMSNorm") or isinstance(module, torch.nn.RMSNorm) or weight is None or epsilon_of(module) is None:
            continue
        states = [scale * probe(weight, 3, *weight.shape) for scale in SCALES]
        if all(alike(partial(norm, module, one), partial(module, one)) for one in states):
            replace_forward(module, norm)
            fused += 1
    return fused


def replace_forward(module: Any, forward: Any) -> None:
    """Give one module another forward pass, by a class of its own: it stays a module of its class that can be copied, and nothing refers back to it."""
    kind = type(module)
    module.__class__ = type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    """weight * states / sqrt(mean of squares + epsilon) over the last dimension."""
    return torch.nn.functional.rms_norm(states, module.weight.shape, module.weight.to(states.dtype), epsilon_of(module))


def epsilon_of(module: Any) -> float | None:
    found: float | None = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return found


def fuse_rotations(model: Any, fast: ModuleType) -> int:
    """Attention modules whose rotary positions go by halves; how many. Their forward pass is run with another function in the place of transformers' own."""
    modules = list(model.modules())
    changed = {kind: with_rotation(kind.forward, fast, next(model.parameters())) for kind in {type(module) for module in modules}}
    chosen = [module for module in modules if changed[type(module)] is not None]
    for module in chosen:
        replace_forward(module, changed[type(module)])
    return len(chosen)


def with_rotation(forward: Any, fast: ModuleType, like: torch.Tensor) -> FunctionType | None:
    """A forward function that turns queries and keys by the kernel; None where it turns none, or turns them otherwise."""
    original = getattr(forward, "__globals__", {}).get(ROTATION)
    if original is None or ROTATION not in forward.__code__.co_names:
        return None
    states = [probe(like, 2, heads, 3, 32) for heads in (4, 2)] + [probe(like, 2, 3, 32) for _ in range(2)]
    if not alike(partial(joined, fast.rotate, states), partial(joined, original, states)):
        return None
    names = {**forward.__globals__, ROTATION: rotation(fast, original)}
    changed = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
    changed.__kwdefaults__ = forward.__kwdefaults__
    return changed


def rotation(fast: ModuleType, original: Any) -> Any:
    def rotate(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any) -> Any:
        half = query.shape[-1] // 2
        is_held = cos.ndim == 3 and 2 * half == cos.shape[-1] == query.shape[-1] and half & (half - 1) == 0
        return original(query, key, cos, sin, *more, **named) if more or named or not is_held else fast.rotate(query, key, cos, sin)

    return rotate


def joined(rotate: Any, states: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(rotate(*states), 1)


def fuse_gates(model: Any, fast: ModuleType) -> int:
    """MLPs of the form down(silu(gate) * up); how many."""

    def gated(module: Any, states: torch.Tensor) -> Any:
        return module.down_proj(fast.gated(module.gate_proj(states), module.up_proj(states)))

    fused = 0
    for module in model.modules():
        if not all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            continue
        weight = next(module.parameters())
        width = getattr(module.gate_proj, "in_features", None)
        if width is None:
            continue
        values, states = 3 * probe(weight.float(), 64), [scale * probe(weight, 3, width) for scale in SCALES]
        is_silu = alike(partial(module.act_fn, values), partial(torch.nn.functional.silu, values))
        if is_silu and all(alike(partial(gated, module, one), partial(module, one)) for one in states):
            replace_forward(module, gated)
            fused += 1
    return fused


def probe(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Normal numbers, the same each time, on the device and in the type of `like`."""
    return torch.empty(shape).normal_(generator=torch.Generator().manual_seed(sum(shape))).to(like.device, like.dtype)


def alike(mine: Callable[[], torch.Tensor], its: Callable[[], torch.Tensor]) -> bool:
    """Whether both give the same numbers to the type's precision. What cannot be computed is not alike."""
    with torch.inference_mode():
        try:
            first, second = mine(), its()
        except failures():
            return False
    tolerance = 4 * torch.finfo(second.dtype).eps
    return torch.allclose(first.float(), second.float(), rtol=tolerance, atol=tolerance * float(second.float().abs().max()))
