"""The bfloat16 twin of a float32 model: what is run, while the weights that are learned, saved and hashed stay float32.

Casting the weights once an update instead of in every forward pass (as autocast does) halves the memory that sampling reads and keeps casts out of the
decode loop. Gradients arrive in bfloat16 and are added up in float32, one micro-batch after the other.
"""

from __future__ import annotations

import copy
from typing import Any

import torch


class Twin:
    """A copy of `model` (its peft wrapper under LoRA) with bfloat16 weights and the buffers as they are. Trained adapters are shared, not copied: they are
    small, and peft computes them in their own type.

    2 bytes for each weight beside the 4 of the original. A model in which nothing is trained is cast in place: it needs no original.
    """

    def __init__(self, model: Any, adapters: Any) -> None:
        trained = [weight for weight in model.parameters() if weight.requires_grad]
        self.adapters = adapters
        self.pairs: list[tuple[torch.nn.Parameter, torch.nn.Parameter]] = []
        if not trained:
            self.model = model
            for weight in model.parameters():
                weight.data = weight.data.to(torch.bfloat16)
            return
        memo: dict[int, Any] = {}
        for weight in model.parameters():
            if adapters is not None and weight.requires_grad:
                memo[id(weight)] = weight
                continue
            half = memo[id(weight)] = torch.nn.Parameter(weight.detach().to(torch.bfloat16), requires_grad=weight.requires_grad)
            if weight.requires_grad:
                half.register_post_accumulate_grad_hook(gradient_to(weight))  # type: ignore[no-untyped-call]
                self.pairs.append((weight, half))
        memo |= {id(one): one for one in memo.values()}  # copied models refer to them, and they are not copied again
        whole = copy.deepcopy(model if adapters is None else adapters, memo)
        self.model, self.adapters = (whole, None) if adapters is None else (whole.base_model.model, whole)

    def refresh(self) -> None:
        """Take over the original's weights, in place: after each update and each load."""
        with torch.no_grad():
            for weight, half in self.pairs:
                half.copy_(weight)


def gradient_to(weight: torch.nn.Parameter) -> Any:
    """A hook that moves the gradient of a bfloat16 weight to its float32 original, added to what is there."""

    def move(half: torch.Tensor) -> None:
        assert half.grad is not None
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        weight.grad.add_(half.grad)
        half.grad = None

    return move
