"""Keys and values of the sequences being sampled, in buffers that are allocated ahead and written in place.

Transformers asks a cache layer for `update(keys, values) -> all keys, all values`. These layers write each token into its column and hand out a view, so a
step copies nothing; the buffers grow by blocks, and a sequence that finished leaves by having its row overwritten with the last one. Layers with a
sliding window store everything too: the mask hides what is out of the window.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers.cache_utils import Cache, CacheLayerMixin

BLOCK_TOKENS = 64


class ColumnLayer(CacheLayerMixin):  # type: ignore[misc]
    """One layer: keys and values of shape [rows, heads, columns, head size]; `count` rows from row `first` on and `length` columns are in use."""

    def __init__(self, is_sliding: bool) -> None:
        super().__init__()
        self.is_sliding = is_sliding
        self.total = self.first = self.count = self.length = 0

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.keys, self.values = (states[:1, :, :0].expand(self.total, -1, -1, -1) for states in (key_states, value_states))
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Append columns; returns views of all filled columns."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin, end = self.length, self.length + key_states.shape[-2]
        if end > self.keys.shape[-2]:
            self.keys, self.values = grown(self.keys[: self.total], begin, end), grown(self.values[: self.total], begin, end)
        rows = slice(self.first, self.first + self.count)
        self.keys[rows, :, begin:end] = key_states
        self.values[rows, :, begin:end] = value_states
        self.length = end
        return self.keys[rows, :, :end], self.values[rows, :, :end]

    def fill(self, first: int, count: int, total: int) -> None:
        """Next come `count` rows from row `first` on, from column 0; there will be `total` rows."""
        self.first, self.count, self.total, self.length = first, count, total, 0

    def expand(self, rows: torch.Tensor) -> None:
        """Row i becomes a copy of what was row `rows[i]`; a row may come several times."""
        self.keys, self.values = repeated(self.keys, rows, self.length), repeated(self.values, rows, self.length)
        self.first, self.count, self.total = 0, len(rows), len(rows)

    def shrink(self, holes: torch.Tensor, movers: torch.Tensor, count: int) -> None:
        """Copy rows `movers` over rows `holes` and forget all from row `count` on."""
        for buffer in (self.keys, self.values):
            buffer[holes, :, : self.length] = buffer[movers, :, : self.length]
        self.count = self.total = count

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        return self.length

    def get_max_length(self) -> int:
        return -1


def grown(buffer: torch.Tensor, filled: int, needed: int) -> torch.Tensor:
    """A copy with room for at least `needed` columns, and half as many again so that copying stays a small share."""
    capacity = -(-(needed + needed // 2) // BLOCK_TOKENS) * BLOCK_TOKENS
    larger = buffer.new_empty((*buffer.shape[:2], capacity, buffer.shape[3]))
    larger[:, :, :filled] = buffer[:, :, :filled]
    return larger


def repeated(buffer: torch.Tensor, rows: torch.Tensor, filled: int) -> torch.Tensor:
    """The chosen rows in a new buffer of the same capacity."""
    chosen = buffer.new_empty((len(rows), *buffer.shape[1:]))
    chosen[:, :, :filled] = buffer[:, :, :filled].index_select(0, rows)
    return chosen


class SamplingCache(Cache):  # type: ignore[misc]
    """One `ColumnLayer` per model layer."""

    def __init__(self, config: Any) -> None:
        super().__init__(layers=[ColumnLayer(is_sliding) for is_sliding in sliding_layers(config)])

    def fill(self, first: int, count: int, total: int) -> None:
        """The next forward pass fills `count` sequences from `first` on, from column 0; there will be `total`."""
        for layer in self.layers:
            layer.fill(first, count, total)

    def expand(self, rows: torch.Tensor) -> None:
        """Sequence i becomes a copy of what was sequence `rows[i]`."""
        for layer in self.layers:
            layer.expand(rows)

    def shrink(self, holes: torch.Tensor, movers: torch.Tensor, count: int) -> None:
        """Copy sequences `movers` over sequences `holes` and forget all from `count` on."""
        for layer in self.layers:
            layer.shrink(holes, movers, count)


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
