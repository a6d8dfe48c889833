"""The moving average of a policy's trained weights, in float32: kept beside them, sampled from by trading places with them, saved with the optimizer.

ema.safetensors    the average by weight name; under LoRA that of the adapters
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from selftrain.errors import CheckpointError
from selftrain.policies.torch.checkpoint import read_tensors, unwritable

EMA_FILE = "ema.safetensors"


class WeightAverage:
    """theta_ema of `weights`: these are the policy's own, by name. It begins as a copy of them, or as `values`."""

    def __init__(self, weights: Mapping[str, torch.nn.Parameter], decay: float, values: Mapping[str, torch.Tensor] | None = None) -> None:
        self.weights, self.decay = weights, decay
        given = weights if values is None else values
        self.values = {name: given[name].detach().to(weight.device, torch.float32, copy=True) for name, weight in weights.items()}

    def follow(self) -> None:
        """theta_ema = decay theta_ema + (1 - decay) theta, after an update."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                self.values[name].lerp_(weight, 1 - self.decay)

    @contextmanager
    def in_place(self, changed: Callable[[], None]) -> Iterator[None]:
        """The policy's weights are the average inside, and bit for bit what they were after. No third copy: one tensor at a time is held.

        changed: called each time that the weights have changed.
        """
        self._trade()
        try:
            changed()
            yield
        finally:
            self._trade()
            changed()

    def _trade(self) -> None:
        with torch.no_grad():
            for name, weight in self.weights.items():
                held = weight.clone()
                weight.copy_(self.values[name])
                self.values[name].copy_(held)

    def save(self, folder: Path) -> None:
        """Raises StorageError when it cannot be written."""
        try:
            save_file({name: value.contiguous().cpu() for name, value in self.values.items()}, folder / EMA_FILE)
        except (OSError, SafetensorError) as error:
            raise unwritable(folder, error) from error


def load_average(folder: Path, weights: Mapping[str, torch.nn.Parameter], decay: float) -> WeightAverage | None:
    """The average in a checkpoint; None where it has none. Raises CheckpointError when it is damaged or that of another model."""
    if not (folder / EMA_FILE).exists():
        return None
    values = read_tensors(folder / EMA_FILE)
    if {name: value.shape for name, value in values.items()} != {name: weight.shape for name, weight in weights.items()}:
        raise CheckpointError(
            f"the checkpoint {folder}", f"the weights in {EMA_FILE} are not those of the model", "resume with the model and policy options it was made with"
        )
    return WeightAverage(weights, decay, values)
