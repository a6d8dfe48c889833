"""Norms and rotary positions on a CPU in fewer passes over memory than transformers' own take, forward and backward, with the same numbers."""

from __future__ import annotations

from typing import Any

import torch


def rotate(query_BHTD: torch.Tensor, key_BKTD: torch.Tensor, cos_BTD: torch.Tensor, sin_BTD: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Queries and keys turned by their positions: x cos + (-x2, x1) sin, where x1 and x2 are the halves of a head."""
    cos, sin = cos_BTD[:, None], sin_BTD[:, None]
    if torch.is_grad_enabled():
        return Rotation.apply(query_BHTD, cos, sin), Rotation.apply(key_BKTD, cos, sin)  # type: ignore[no-untyped-call]
    return turned(query_BHTD, cos, sin, 1), turned(key_BKTD, cos, sin, 1)


def turned(states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, sign: int) -> torch.Tensor:
    """One pass for the cosines, half of one for each half's sines. sign -1: what was turned is turned back, which takes each half by the other's sines."""
    half, out = states.shape[-1] // 2, states * cos
    first, second = (sin[..., :half], sin[..., half:])[::sign]
    out[..., :half].addcmul_(states[..., half:], first, value=-sign)
    out[..., half:].addcmul_(states[..., :half], second, value=sign)
    return out


class Rotation(torch.autograd.Function):
    """The gradient of what was turned is turned back."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        return turned(states, cos, sin, 1)

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return turned(slope, cos, sin, -1), None, None


def epsilon_of(module: Any) -> float | None:
    found: float | None = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    return found


def norm(module: Any, states: torch.Tensor) -> torch.Tensor:
    """weight * states / sqrt(mean of squares + epsilon) over the last dimension, by transformers' own operations, so that no bit differs."""
    epsilon = epsilon_of(module)
    assert epsilon is not None, "only norms that have one are replaced"
    if not torch.is_grad_enabled():
        return module.weight * (states * scale_of(states, epsilon))  # type: ignore[no-any-return]
    out: torch.Tensor = Norm.apply(states, module.weight, epsilon)  # type: ignore[no-untyped-call]
    return out


def scale_of(states: torch.Tensor, epsilon: float) -> torch.Tensor:
    return states.pow(2).mean(-1, keepdim=True).add_(epsilon).rsqrt_()


class Norm(torch.autograd.Function):
    """y = w x r with r = 1 / sqrt(mean(x^2) + e). For slopes g: dw = sum over rows of g x r, dx = g w r - x r^3 mean(g w x)."""

    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, weight: torch.Tensor, epsilon: float) -> torch.Tensor:
        states_ND = states.reshape(-1, states.shape[-1])
        scale_N1 = scale_of(states_ND, epsilon)
        ctx.save_for_backward(states_ND, weight, scale_N1)
        out: torch.Tensor = (states_ND * scale_N1).mul_(weight).view(states.shape)
        return out

    @staticmethod
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        states_ND, weight, scale_N1 = ctx.saved_tensors
        slope_ND = slope.reshape(states_ND.shape)
        both_ND = slope_ND * states_ND
        of_weight = scale_N1[:, 0] @ both_ND if ctx.needs_input_grad[1] else None
        back_N1 = ((both_ND @ weight) * scale_N1[:, 0].pow(3)).div_(-states_ND.shape[1])[:, None]
        return (slope_ND * weight).mul_(scale_N1).addcmul_(states_ND, back_N1).view(slope.shape), of_weight, None
