"""Low-rank adapters (arXiv 2106.09685) through peft: the start stays frozen, small matrices beside every linear layer but the head are trained."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from selftrain.errors import MissingExtraError


def add_adapters(model: Any, rank: int, alpha: float, seed: int) -> Any:
    """Put adapters into `model` in place and freeze the rest; returns peft's wrapper, which can switch them off.

    Their random start comes from `seed` alone. Raises MissingExtraError without peft.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError(
            "policy.lora_rank", "LoRA needs peft, which is not installed", "install selftrain[lora], or leave policy.lora_rank unset"
        ) from error

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules="all-linear", lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft 0.21 on transformers 5.23
        torch.manual_seed(seed % 2**63)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)  # peft then sets what GPT-2's layers need
        return get_peft_model(model, config)


def merged_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a plain model with the adapters added in, by the plain model's names; the model itself is not touched."""
    weights = {name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name}
    with torch.no_grad():
        for name, module in model.named_modules():
            if hasattr(module, "get_delta_weight"):
                weights[f"{name}.weight"] = weights[f"{name}.weight"] + module.get_delta_weight("default")
    return weights
