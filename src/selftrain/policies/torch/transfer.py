"""The learner's weights for another engine: by the names of a checkpoint, one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from selftrain.policies.torch.lora import merged_weights


def transferred(model: Any, has_adapters: bool, dtype: str) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, weight) in the order of the model, adapters added in, in the engine's type. A weight that is cast is copied only while it is handed over."""
    from transformers.core_model_loading import revert_weight_conversion

    weights = merged_weights(model) if has_adapters else dict(model.named_parameters())
    places = {(weight.data_ptr(), weight.shape): name for name, weight in reversed(weights.items())}  # a tied weight goes by its first name
    own = {name: weight for name, weight in weights.items() if places[weight.data_ptr(), weight.shape] == name}
    for name, weight in revert_weight_conversion(model, own).items():
        yield name, weight.detach().to(getattr(torch, dtype))
