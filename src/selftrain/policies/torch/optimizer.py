"""AdamW over float32 weights, with its state in 32 bits, in 8 bits, or in 8 bits that move to host memory; and that state as named tensors.

    adamw             two float32 moments: 8 bytes a weight
    adamw_8bit        block-wise 8-bit moments (arXiv 2110.02861): 2 bytes a weight and two float32 factors for 256 weights, 2.03 bytes in all
    adamw_paged_8bit  the same in CUDA managed memory, which the driver moves to host memory when the device is full

Tensors of fewer than 4,096 weights keep 32 bits in all of them. The 8-bit ones are those of bitsandbytes (extra `optimizers`).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from selftrain.config import UpdateSection
from selftrain.errors import MissingExtraError

ADAM_EPSILON = 1e-8
FULL_STATE = ("exp_avg", "exp_avg_sq")
SMALL_STATE, SMALL_FACTORS = ("state1", "state2"), ("absmax1", "absmax2")
BLOCK_WEIGHTS, MIN_8BIT_WEIGHTS = 256, 4096

State = dict[str, torch.Tensor]


def make_optimizer(weights: Sequence[torch.nn.Parameter], config: UpdateSection) -> torch.optim.Optimizer:
    """Matrices decay by `weight_decay`, vectors (norms, biases) do not. Raises MissingExtraError without bitsandbytes."""
    groups = [
        {"params": [weight for weight in weights if weight.ndim >= 2], "weight_decay": config.weight_decay},
        {"params": [weight for weight in weights if weight.ndim < 2], "weight_decay": 0.0},
    ]
    settings: dict[str, Any] = {"lr": config.learning_rate, "betas": (config.beta1, config.beta2), "eps": ADAM_EPSILON}
    filled = [group for group in groups if group["params"]]
    if config.optimizer == "adamw":
        return torch.optim.AdamW(filled, **settings, fused=True)
    is_paged = config.optimizer == "adamw_paged_8bit"
    made: torch.optim.Optimizer = bitsandbytes().optim.AdamW8bit(filled, **settings, min_8bit_size=MIN_8BIT_WEIGHTS, is_paged=is_paged)
    return made


def bitsandbytes() -> Any:
    """The library, imported when it is asked for. Raises MissingExtraError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import bitsandbytes as library
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(
            "update.optimizer", f"8-bit optimizer states need bitsandbytes, which cannot be used here ({error})", "install selftrain[optimizers], or take adamw"
        ) from error
    return library


def state_of(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> tuple[int, State]:
    """Optimizer steps done and the tensors of the state of one weight, contiguous on the CPU; (0, {}) before the first step."""
    state = optimizer.state.get(weight)
    if not state:
        return 0, {}
    return int(state["step"]), {name: state[name].contiguous().cpu() for name in (*FULL_STATE, *SMALL_STATE, *SMALL_FACTORS) if name in state}


def expected_state(optimizer: torch.optim.Optimizer, weight: torch.nn.Parameter) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
    """Shape and type of every tensor of the state of one weight after a step."""
    shape = tuple(weight.shape)
    if isinstance(optimizer, torch.optim.AdamW):
        return dict.fromkeys(FULL_STATE, (shape, weight.dtype))
    if weight.numel() < MIN_8BIT_WEIGHTS:
        return dict.fromkeys(SMALL_STATE, (shape, torch.float32))
    blocks = -(-weight.numel() // BLOCK_WEIGHTS)
    return dict.fromkeys(SMALL_STATE, (shape, torch.uint8)) | dict.fromkeys(SMALL_FACTORS, ((blocks,), torch.float32))


def restore_state(optimizer: torch.optim.Optimizer, weights: Sequence[torch.nn.Parameter], steps: int, tensors: Sequence[State]) -> None:
    """The state of all weights becomes a copy of `tensors` (one mapping a weight); without a step done there is none."""
    optimizer.state.clear()
    if not steps:
        return
    found = dict(zip(weights, tensors, strict=True))
    if isinstance(optimizer, torch.optim.AdamW):
        for weight, state in found.items():
            moments = {name: value.to(weight.device, copy=True) for name, value in state.items()}
            optimizer.state[weight] = {"step": torch.tensor(float(steps), device=weight.device), **moments}
        return
    for at, group in enumerate(optimizer.param_groups):
        for place, weight in enumerate(group["params"]):
            optimizer.init_state(group, weight, at, place)  # type: ignore[attr-defined]  # its own buffers, in managed memory where it is paged
            for name, value in found[weight].items():
                optimizer.state[weight][name].copy_(value)
            optimizer.state[weight]["step"] = steps
