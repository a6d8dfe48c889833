"""Keys and values of the sequences being sampled, in buffers that are allocated ahead and written in place.

Transformers asks a cache layer for `update(keys, values) -> all keys, all values`. These layers write each token into its column and hand out a view, so a
step copies nothing; the buffers grow by blocks, rows that finished leave by `keep`. Layers with a sliding window store everything too: the mask hides
what is out of the window.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK_TOKENS = 64


class ColumnLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer: keys and values of shape [B, heads, capacity, head size], of which the first `length` columns are filled."""

    def __init__(self, is_sliding: bool) -> None:
        super().__init__()
        self.is_sliding = is_sliding
        self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = key_states[:, :, :0], value_states[:, :, :0]
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns; returns views of all filled columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, end = self.length, self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys, self.values = grown(self.keys, begin, end), grown(self.values, begin, end)
        self.keys[:, :, begin:end] = key_states
        self.values[:, :, begin:end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may come several times."""
        self.keys = rows_of(self.keys, rows, self.length)
        self.values = rows_of(self.values, rows, self.length)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


def grown(buffer: torch.Tensor, filled: int, needed: int) -> torch.Tensor:
    """A copy with room for at least `needed` columns, and half as many again so that copying stays a small share."""
    capacity = -(-(needed + needed // 2) // BLOCK_TOKENS) * BLOCK_TOKENS
    larger = buffer.new_zeros((*buffer.shape[:2], capacity, buffer.shape[3]))
    larger[:, :, :filled] = buffer[:, :, :filled]
    return larger


def rows_of(buffer: torch.Tensor, rows: torch.Tensor, filled: int) -> torch.Tensor:
    """The chosen rows in a new buffer of the same capacity."""
    chosen = buffer.new_zeros((len(rows), *buffer.shape[1:]))
    torch.index_select(buffer[:, :, :filled], 0, rows, out=chosen[:, :, :filled])
    return chosen


class SamplingCache(Cache):  # type: ignore[misc]
    """One `ColumnLayer` per model layer."""

    def __init__(self, config: Any) -> None:
        super().__init__(layers=[ColumnLayer(is_sliding) for is_sliding in sliding_layers(config)])

    def keep(self, rows: torch.Tensor) -> None:
        """Keep these sequences, in this order."""
        for layer in self.layers:
            layer.keep(rows)


def sliding_layers(config: Any) -> list[bool]:
    """For each layer whether its attention has a window."""
    text = config.get_text_config(decoder=True)
    types = getattr(text, "layer_types", None)
    if types is None:
        return [getattr(text, "sliding_window", None) is not None] * text.num_hidden_layers
    return [kind == "sliding_attention" for kind in types]


def attends_only(config: Any) -> bool:
    """Whether every layer is full or sliding attention, so that this cache holds all its state."""
    types = getattr(config.get_text_config(decoder=True), "layer_types", None) or ()
    return set(types) <= {"full_attention", "sliding_attention"}
