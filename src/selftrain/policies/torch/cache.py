"""Keys and values: of prompts, which are run once, and of the sequences that go on from them.

Transformers asks a cache layer for `update(keys, values) -> what to attend to`. A `PromptLayer` keeps what it is given; a `LearningLayer` puts the prompt's
keys before those of its sequences; a `DecodingLayer` writes one token of each sequence into buffers that are allocated ahead. The latter two hand out
`Shared` keys (attention.py). Layers with a sliding window store everything too: the mask hides what is out of the window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache, CacheLayerMixin

from selftrain.policies.torch.attention import Decoding, Learning, Shared
from selftrain.policies.torch.layers import head_sizes, sliding_layers

BLOCK_TOKENS = 64

Pair = tuple[torch.Tensor, torch.Tensor]


class Layer(CacheLayerMixin):  # type: ignore[misc]
    """What transformers wants to know of every layer; positions are always given to the model, so lengths are not asked for."""

    def __init__(self, is_sliding: bool) -> None:
        super().__init__()
        self.is_sliding = is_sliding

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        raise NotImplementedError("layers are made with their buffers")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return query_length, 0

    def get_seq_length(self) -> int:
        return 0

    def get_max_length(self) -> int:
        return -1


class PromptLayer(Layer):
    """Keys and values [P, K, L, D] of the prompts of one pass."""

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> Pair:
        self.keys, self.values = key_states, value_states
        return key_states, value_states


class LearningLayer(Layer):
    """Sequences of one micro-batch behind their prompts; nothing is kept."""

    def __init__(self, is_sliding: bool, prompt: Pair, layout: Learning) -> None:
        super().__init__(is_sliding)
        self.prompt, self.layout = prompt, layout

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> tuple[Shared, Shared]:
        return Shared(self.prompt[0], key_states, self.layout, self.is_sliding), Shared(self.prompt[1], value_states, self.layout, self.is_sliding)


class DecodingLayer(Layer):
    """Buffers of one layer: `prompt` [S, K, L, D] for S prompts and `own` [R, K, C, D] for R sequences of up to C tokens, keys and values each."""

    def __init__(self, is_sliding: bool) -> None:
        super().__init__(is_sliding)
        self.prompt: list[torch.Tensor] = []
        self.own: list[torch.Tensor] = []

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_args: Any, **_kwargs: Any) -> tuple[Shared, Shared]:
        """Write one token of each of the first B rows into its column; hand out the columns in use."""
        for buffer, states in zip(self.own, (key_states, value_states), strict=True):
            if isinstance(self.columns, int):
                buffer[: len(states), :, self.columns] = states[:, :, 0]
            else:
                buffer[self.rows_B, :, self.columns] = states[:, :, 0].to(buffer.dtype)
        keys, values = (
            Shared(prompt[: self.num_prompts, :, : self.prompt_width], own[: len(self.rows_B), :, : self.width], self.layout, self.is_sliding)
            for prompt, own in zip(self.prompt, self.own, strict=True)
        )
        return keys, values

    def at(self, rows_B: torch.Tensor, columns: torch.Tensor | int, widths: tuple[int, int, int], layout: Decoding) -> None:
        """The next token of row `rows_B[i]` (0, 1, ...) goes into column `columns[i]`, or into one column for all.

        widths: prompts in use, their columns, the sequences' columns, those of copied prompts included.
        """
        self.rows_B, self.columns, self.layout = rows_B, columns, layout
        self.num_prompts, self.prompt_width, self.width = widths


class DecodingCache(Cache):  # type: ignore[misc]
    """One `DecodingLayer` per model layer. Buffers grow when needed, so a short run of sequences needs little."""

    def __init__(self, config: Any) -> None:
        super().__init__(layers=[DecodingLayer(is_sliding) for is_sliding in sliding_layers(config)])

    def store(self, slots: Sequence[int], prompts: Cache, num_slots: int, num_columns: int = 0) -> None:
        """Put the keys and values of prompts [P, K, L, D] into these slots, of which there are so many, of at least `num_columns` columns."""
        index = torch.tensor(slots, device=prompts.layers[0].keys.device)
        for layer, filled in zip(self.layers, prompts.layers, strict=True):
            states = (filled.keys, filled.values)
            if not layer.prompt:
                layer.prompt = [state.new_zeros((num_slots, state.shape[1], 0, state.shape[3])) for state in states]
                layer.own = [state.new_zeros((0, state.shape[1], 0, state.shape[3])) for state in states]
            for at, state in enumerate(states):
                width = max(num_columns, state.shape[2])
                layer.prompt[at] = with_room(layer.prompt[at], num_slots, width, width)
                layer.prompt[at][index, :, : state.shape[2]] = state

    def make_room(self, rows: int, columns: int, most_columns: int, used_rows: int | None = None) -> None:
        """At least so many rows and columns for the sequences' own tokens, of which none will have more than `most_columns`. used_rows: the first ones, whose
        keys and values are kept; all where it is not given.
        """
        for layer in self.layers:
            layer.own = [with_room(buffer, rows, columns, most_columns, used_rows) for buffer in layer.own]

    def copy_prompts(self, slots: torch.Tensor, rows: slice, columns: int) -> None:
        """Copy the prompts in these slots into rows, before the rows' own tokens: `columns` of them."""
        for layer in self.layers:
            for prompt, own in zip(layer.prompt, layer.own, strict=True):
                own[rows, :, :columns] = prompt[slots, :, :columns]

    def move(self, sources: torch.Tensor, targets: torch.Tensor, columns: int) -> None:
        """Copy rows `sources` over rows `targets`, the first columns of them."""
        for layer in self.layers:
            for buffer in layer.own:
                buffer[targets, :, :columns] = buffer[sources, :, :columns]


def numbers_per_token(config: Any, cache: DecodingCache) -> int:
    """Of one token in all layers; where less is cached than keys and values of all heads, those of one layer too, which are made of it."""
    cached: int = sum(buffer.shape[1] * buffer.shape[3] for layer in cache.layers for buffer in layer.own)
    text = config.get_text_config(decoder=True)
    is_latent = getattr(text, "kv_lora_rank", None) and cache.layers[0].own[0].shape[1] == 1
    return cached + (int(text.num_attention_heads) * sum(head_sizes(text)) if is_latent else 0)


def with_room(buffer: torch.Tensor, rows: int, columns: int, most_columns: int, used_rows: int | None = None) -> torch.Tensor:
    """The buffer, or a copy with at least so many rows and columns: whole blocks, and half as many columns again, so that copying stays a small share, but
    no more columns than ever needed, so that memory stays what was planned.

    New room holds zeros: what was never written is multiplied by weight 0, which a NaN would survive.
    """
    if buffer.shape[0] >= rows and buffer.shape[2] >= columns:
        return buffer
    capacity = buffer.shape[2] if buffer.shape[2] >= columns else -(-(columns + buffer.shape[2] // 2) // BLOCK_TOKENS) * BLOCK_TOKENS
    capacity = max(columns, buffer.shape[2], min(capacity, most_columns))
    larger = zeros((max(rows, buffer.shape[0]), buffer.shape[1], capacity, buffer.shape[3]), buffer)
    used = buffer[:used_rows]
    larger[: len(used), :, : buffer.shape[2]] = used
    return larger


def zeros(shape: tuple[int, ...], like: torch.Tensor) -> torch.Tensor:
    """Zeros of this tensor's type and device; on a CPU in pages that the system gives when they are first touched, so room that stays unused costs nothing.

    They come from the C library, which keeps smaller blocks for itself once a large one has been freed: with pages of our own, the temporaries of every step
    would be mapped anew (sampling 40 % slower).
    """
    if like.device.type != "cpu" or 0 in shape:
        return like.new_zeros(shape)
    return torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8)).view(like.dtype).view(shape)


def prompt_cache(config: Any) -> Cache:
    """An empty `PromptLayer` per model layer."""
    return Cache(layers=[PromptLayer(is_sliding) for is_sliding in sliding_layers(config)])


def learning_cache(config: Any, prompts: Sequence[Pair], layout: Learning) -> Cache:
    """A `LearningLayer` per model layer, behind the keys and values of each."""
    return Cache(layers=[LearningLayer(is_sliding, pair, layout) for is_sliding, pair in zip(sliding_layers(config), prompts, strict=True)])
