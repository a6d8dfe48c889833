"""What runs as one kernel on a GPU: the draw, the attention of a decode step, log-probabilities with their gradient, and of the layers norms,
rotary positions and gates (kernels.py).

Everything here has a plain version that a CPU always uses, and a GPU where Triton is missing or its kernels do not give what plain torch gives.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from functools import cache, partial
from importlib import import_module
from types import FunctionType, MethodType, ModuleType
from typing import Any

import torch

LEAST_HEAD_SIZE, MOST_HEAD_SIZE = 16, 256
ROTATION = "apply_rotary_pos_emb"
"""The name of the function in transformers' modules that turns queries and keys by their positions."""


@cache
def kernels(device_type: str) -> ModuleType | None:
    """The Triton kernels, or None: on a CPU, without Triton, or, after a warning, where they fail on this card."""
    if device_type != "cuda":
        return None
    try:
        found, failures = import_module("selftrain.policies.torch.kernels"), import_module("triton.errors")
    except ImportError:
        return None
    try:
        wrong = difference(found, torch.device(device_type))
    except (RuntimeError, ValueError, TypeError, failures.TritonError) as error:
        wrong = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if wrong:
        warnings.warn(f"Triton kernels fail on this GPU ({wrong}): plain torch is used, slower and with the same results", RuntimeWarning, stacklevel=2)
        return None
    return found


def difference(found: ModuleType, device: torch.device) -> str:
    """Where log-probabilities by the kernels are not those of torch, in words."""
    targets_K = torch.arange(4, device=device)
    logits_KV, uniforms_K = probe(torch.empty(0, device=device), 4, 5000), (targets_K.double() + 0.5) / 4
    expected_KV = logits_KV.log_softmax(-1)
    tokens_K, drawn_K, _, _ = found.draw(logits_KV, uniforms_K, 1.0, False)
    mine_K, _ = found.logprobs(logits_KV, targets_K, 1.0)
    for name, values_K, ids_K in (("draw", drawn_K, tokens_K), ("logprobs", mine_K, targets_K)):
        if not torch.allclose(values_K, expected_KV.gather(-1, ids_K[:, None])[:, 0], atol=1e-3):
            return f"{name} is off by more than 0.001 nats"
    return ""


def attends(query_BHQD: torch.Tensor) -> ModuleType | None:
    """The kernels, where they hold heads of this size."""
    size = query_BHQD.shape[-1]
    is_held = LEAST_HEAD_SIZE <= size <= MOST_HEAD_SIZE and size & (size - 1) == 0
    return kernels(query_BHQD.device.type) if is_held else None


def fuse(model: Any) -> dict[str, int]:
    """Let norms, rotary positions and gated MLPs run as one kernel each, backward too, where that gives what they give. Returns how many of each.

    In bfloat16 what was rounded after every operation is then rounded once. Weights, names and the state that is saved stay as they are.
    """
    fast = kernels(next(model.parameters()).device.type)
    return {"norms": fuse_norms(model)} | ({} if fast is None else {"rotations": fuse_rotations(model, fast), "gates": fuse_gates(model, fast)})


def fuse_norms(model: Any) -> int:
    """Root-mean-square norms that torch's own function computes."""
    fused = 0
    for module in model.modules():
        weight = getattr(module, "weight", None)
        epsilon = getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or isinstance(module, torch.nn.RMSNorm) or weight is None or epsilon is None:
            continue
        states = probe(weight, 3, *weight.shape)
        if alike(partial(norm, module, epsilon, states), partial(module, states)):
            module.forward = partial(norm, module, epsilon)
            fused += 1
    return fused


def norm(module: Any, epsilon: float, states: torch.Tensor) -> torch.Tensor:
    """weight * states / sqrt(mean of squares + epsilon) over the last dimension."""
    return torch.nn.functional.rms_norm(states, module.weight.shape, module.weight.to(states.dtype), epsilon)


def fuse_rotations(model: Any, fast: ModuleType) -> int:
    """Attention modules whose rotary positions go by halves: their forward pass is run with another function in the place of transformers' own."""
    fused = 0
    weight = next(model.parameters())
    for module in model.modules():
        forward = type(module).forward
        original = getattr(forward, "__globals__", {}).get(ROTATION)
        if original is None or ROTATION not in forward.__code__.co_names:
            continue
        states = [probe(weight, 2, heads, 3, 32) for heads in (4, 2)] + [probe(weight, 2, 3, 32) for _ in range(2)]
        if not alike(partial(joined, fast.rotate, states), partial(joined, original, states)):
            continue
        names = {**forward.__globals__, ROTATION: rotation(fast, original)}
        changed = FunctionType(forward.__code__, names, forward.__name__, forward.__defaults__, forward.__closure__)
        changed.__kwdefaults__ = forward.__kwdefaults__
        module.forward = MethodType(changed, module)
        fused += 1
    return fused


def rotation(fast: ModuleType, original: Any) -> Any:
    def rotate(query: torch.Tensor, key: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any) -> Any:
        half = query.shape[-1] // 2
        is_held = cos.ndim == 3 and 2 * half == cos.shape[-1] == query.shape[-1] and half & (half - 1) == 0
        return original(query, key, cos, sin, *more, **named) if more or named or not is_held else fast.rotate(query, key, cos, sin)

    return rotate


def joined(rotate: Any, states: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(rotate(*states), 1)


def fuse_gates(model: Any, fast: ModuleType) -> int:
    """MLPs of the form down(silu(gate) * up)."""
    fused = 0
    for module in model.modules():
        if not all(hasattr(module, name) for name in ("gate_proj", "up_proj", "down_proj", "act_fn")):
            continue
        weight = next(module.parameters())
        values, states = 3 * probe(weight.float(), 64), probe(weight, 3, module.gate_proj.in_features)
        is_silu = alike(partial(module.act_fn, values), partial(torch.nn.functional.silu, values))
        if is_silu and alike(partial(gated, module, fast, states), partial(module, states)):
            module.forward = partial(gated, module, fast)
            fused += 1
    return fused


def gated(module: Any, fast: ModuleType, states: torch.Tensor) -> torch.Tensor:
    out: torch.Tensor = module.down_proj(fast.gated(module.gate_proj(states), module.up_proj(states)))
    return out


def probe(like: torch.Tensor, *shape: int) -> torch.Tensor:
    """Normal numbers, the same each time, on the device and in the type of `like`."""
    return torch.empty(shape).normal_(generator=torch.Generator().manual_seed(sum(shape))).to(like.device, like.dtype)


def alike(mine: Callable[[], torch.Tensor], its: Callable[[], torch.Tensor]) -> bool:
    """Whether both give the same numbers to the type's precision. What cannot be computed is not alike."""
    with torch.inference_mode():
        try:
            first, second = mine(), its()
        except (RuntimeError, TypeError, ValueError):
            return False
    tolerance = 4 * torch.finfo(second.dtype).eps
    return torch.allclose(first.float(), second.float(), rtol=tolerance, atol=tolerance * float(second.float().abs().max()))
