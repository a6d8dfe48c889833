"""Activations that are made again in the backward pass instead of being kept: each layer of the model keeps its input only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from selftrain.errors import ModelError


def layers_of(model: Any) -> list[Any]:
    """The layers that can be recomputed: those that transformers itself would."""
    return [module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)]


def check_recomputable(model: Any) -> None:
    """Raises ModelError for a model without such layers."""
    if not layers_of(model):
        raise ModelError(
            "policy.gradient_checkpointing = true",
            f"transformers knows no layers of a model of type {model.config.model_type!r} that could be recomputed",
            "leave policy.gradient_checkpointing out",
        )


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """Inside, layers are recomputed. The model stays in evaluation mode: transformers' own way needs training mode, in which some families drop units or whole
    layers, or shake their routers.
    """
    wrapped = [(layer, vars(layer).get("forward")) for layer in layers_of(model)]
    for layer, _ in wrapped:
        layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
    try:
        yield
    finally:
        for layer, own in wrapped:
            if own is None:
                del layer.forward
            else:
                layer.forward = own
