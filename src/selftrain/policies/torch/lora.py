"""Low-rank adapters (arXiv 2106.09685) through peft: the start stays frozen, small matrices beside every linear layer but the head are trained. Experts that
lie in one tensor and routers, which are no linear layers, stay as they are."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from selftrain.errors import MissingExtraError, ModelError
from selftrain.policies.torch.loading import first_line


def add_adapters(model: Any, rank: int, alpha: float, seed: int) -> Any:
    """Put adapters into `model` in place and freeze the rest; returns peft's wrapper, which can switch them off.

    Their random start comes from `seed` alone. Raises MissingExtraError without peft, ModelError for a model that has no linear layers, or such whose
    adapters could not be added to its weights.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtraError(
            "policy.lora_rank", "LoRA needs peft, which is not installed", "install selftrain[lora], or leave policy.lora_rank unset"
        ) from error

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear_layers(model), lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated", FutureWarning)  # peft 0.21 on transformers 5.23
        torch.manual_seed(seed % 2**63)
        warnings.filterwarnings("ignore", "fan_in_fan_out is set to False", UserWarning)  # peft then sets what GPT-2's layers need
        try:
            adapters = get_peft_model(model, config)
        except ValueError as error:
            given = f"policy.lora_rank with a model of type {model.config.model_type!r}"
            raise ModelError(given, f"peft refuses it: {first_line(error)}", "leave policy.lora_rank unset") from error
    check_mergeable(model)
    return adapters


def linear_layers(model: Any) -> list[str]:
    """Names of the layers that get adapters. Raises ModelError where there are none."""
    forwards = (torch.nn.Linear.forward, Conv1D.forward)  # a subclass that does more, such as a router, is no linear layer
    head = model.get_output_embeddings()
    names = [name for name, module in model.named_modules() if getattr(type(module), "forward", None) in forwards and module is not head]
    if not names:
        raise ModelError(
            f"policy.lora_rank with a model of type {model.config.model_type!r}",
            "it has no linear layers beside which adapters could stand",
            "leave policy.lora_rank unset",
        )
    return names


def check_mergeable(model: Any) -> None:
    """Raises ModelError when the weight of an adapter has another place or shape than `merged_weights` adds it to."""
    shapes = {name: weight.shape for name, weight in plain_weights(model).items()}
    for name, module in adapted(model):
        rows, columns = module.lora_B["default"].weight.shape[0], module.lora_A["default"].weight.shape[1]
        if shapes.get(f"{name}.weight") not in ((rows, columns), (columns, rows)):
            raise ModelError(
                f"policy.lora_rank with a model of type {model.config.model_type!r}",
                f"the adapter of {name} cannot be added to its weight, so no checkpoint could be written",
                "leave policy.lora_rank unset",
            )


def adapted(model: Any) -> list[tuple[str, Any]]:
    """Layers with an adapter, by name."""
    return [(name, module) for name, module in model.named_modules() if hasattr(module, "get_delta_weight")]


def plain_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights without the adapters, by the plain model's names."""
    return {name.replace(".base_layer.", "."): value for name, value in model.state_dict().items() if ".lora_" not in name}


def merged_weights(model: Any) -> dict[str, torch.Tensor]:
    """The weights of a plain model with the adapters added in, by the plain model's names; the model itself is not touched."""
    weights = plain_weights(model)
    with torch.no_grad():
        for name, module in adapted(model):
            weights[f"{name}.weight"] = weights[f"{name}.weight"] + module.get_delta_weight("default")
    return weights
