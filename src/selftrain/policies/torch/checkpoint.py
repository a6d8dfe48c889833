"""Weights, moments and version to and from a folder.

    model.safetensors, config.json, tokenizer files   the complete policy, as `transformers` loads it (adapters merged)
    optimizer.safetensors                             the optimizer's state, by weight name; under LoRA also the adapters themselves
    learner.json                                      format, policy version, optimizer and its steps

No pickle: nothing in a checkpoint is executed.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from selftrain.errors import CheckpointError, ModelError, StorageError
from selftrain.policies.torch.learner import TorchLearner
from selftrain.policies.torch.loading import load_weights, quiet
from selftrain.policies.torch.lora import merged_weights
from selftrain.policies.torch.optimizer import expected_state, restore_state, state_of
from selftrain.types import PolicyVersion

FORMAT = 2
OPTIMIZER_FILE, LEARNER_FILE = "optimizer.safetensors", "learner.json"


def save_model(folder: Path, model: Any, tokenizer: Any, has_adapters: bool) -> None:
    """Write a complete Hugging Face folder, float32. Raises StorageError when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with quiet():
            model.save_pretrained(folder, state_dict=merged_weights(model) if has_adapters else None)
            tokenizer.save_pretrained(folder)
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error


def save_learner(folder: Path, learner: TorchLearner, version: PolicyVersion, has_adapters: bool) -> None:
    """Write what is needed beyond the weights to go on exactly. Raises StorageError when it cannot be written."""
    tensors, steps = {}, 0
    for name, weight in learner.weights.items():
        if has_adapters:
            tensors[f"weight/{name}"] = weight.detach().contiguous().cpu()
        steps, state = state_of(learner.optimizer, weight)
        tensors.update({f"{kind}/{name}": value for kind, value in state.items()})
    record = {"format": FORMAT, "version": str(version), "optimizer": learner.config.optimizer, "optimizer_steps": steps}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / OPTIMIZER_FILE)
        (folder / LEARNER_FILE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise unwritable(folder, error) from error


def load_learner(folder: Path, learner: TorchLearner, has_adapters: bool) -> PolicyVersion:
    """Take back weights, moments and version, bit for bit. Raises CheckpointError when the folder lacks something or does not fit; then nothing has changed."""
    record, tensors = read_record(folder), read_tensors(folder / OPTIMIZER_FILE)
    if not has_adapters:
        tensors |= {f"weight/{name}": weight for name, weight in read_weights(folder).items()}
    if record["optimizer"] != learner.config.optimizer:
        raise CheckpointError(
            f"the checkpoint {folder}",
            f"its optimizer is {record['optimizer']} and update.optimizer is {learner.config.optimizer}",
            "resume with the options it was made with",
        )
    steps, states = int(record["optimizer_steps"]), []
    for name, weight in learner.weights.items():
        expected = {"weight": (tuple(weight.shape), weight.dtype), **(expected_state(learner.optimizer, weight) if steps else {})}
        for kind, (shape, dtype) in expected.items():
            found = tensors.get(f"{kind}/{name}")
            if found is None or tuple(found.shape) != shape or found.dtype != dtype:
                raise CheckpointError(
                    f"the checkpoint {folder}",
                    f"{kind} of {name} is missing from it or has another shape or type than the model's",
                    "resume with the model and policy options it was made with",
                )
        states.append({kind: tensors[f"{kind}/{name}"] for kind in expected if kind != "weight"})
    with torch.no_grad():
        for name, weight in learner.weights.items():
            weight.copy_(tensors[f"weight/{name}"])
        restore_state(learner.optimizer, list(learner.weights.values()), steps, states)
    return PolicyVersion.parse(record["version"])


def read_record(folder: Path) -> dict[str, Any]:
    path = folder / LEARNER_FILE
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if record["format"] != FORMAT:
            raise CheckpointError(str(path), f"it has format {record['format']}, this release reads {FORMAT}", "resume with the release that wrote it")
        PolicyVersion.parse(record["version"]), int(record["optimizer_steps"]), str(record["optimizer"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise damaged(path, error) from error
    return record


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    try:
        tensors: dict[str, torch.Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise damaged(path, error) from error
    return tensors


def read_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of a saved policy by parameter name (transformers reads them, so that renamed and split files fit)."""
    try:
        return {name: weight.detach() for name, weight in load_weights(str(folder), is_folder=True).named_parameters()}
    except ModelError as error:
        raise damaged(folder, error) from error


def weights_hash(model: Any) -> str:
    """SHA-256 over name, type, shape and bytes of every weight and saved buffer, in name order; a weight used twice counts once."""
    saved = model.state_dict(keep_vars=True)
    unique = {id(value): name for name, value in sorted(saved.items(), reverse=True)}
    digest = hashlib.sha256()
    for name in sorted(unique.values()):
        value = saved[name].detach().cpu().contiguous()
        digest.update(f"{name}\x1f{value.dtype}\x1f{tuple(value.shape)}\x1e".encode())
        digest.update(value.view(torch.uint8).numpy().data if value.ndim else value.reshape(1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def damaged(path: Path, error: BaseException) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint file {path}",
        f"it is missing or damaged: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
        "use an earlier checkpoint of the run",
    )


def unwritable(folder: Path, error: BaseException) -> StorageError:
    return StorageError(
        f"the folder {folder}",
        f"the policy cannot be written there: {error}",
        "free some space; a run is taken up again by `selftrain resume`, and an export goes into another folder as well",
    )
