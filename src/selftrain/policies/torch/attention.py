"""Attention of sequences that share their prompt: over the prompt's keys, kept once for all its votes, and over each sequence's own.

A cache layer hands transformers a `Shared` in place of the keys and one in place of the values; the attention function that is registered here takes
them apart. Shape letters: P prompts, L their padded length, B sequences, T own tokens, Q queries of each (1 when decoding, T when learning), N places a
prompt has for its sequences, K key-value heads, G query heads of each, D head size.

The scores of both parts are joined before the softmax, so this is plain attention; only the layout differs. When decoding, the queries of one prompt are
gathered into one matrix, so that its keys are read once for all of them. A short prompt costs less where each sequence has a copy of its keys before its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any, NamedTuple

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from selftrain.policies.torch.fused import attends
from selftrain.policies.torch.trees import Packed

NAME = "selftrain_shared"
SHORT_TOKENS = 128
"""Up to so many keys plain matrix products are faster than the fused attention of a CPU, forward and backward."""
CHOOSING = ("position_bias", "indices", "block_indices")
"""what some models give their attention beside a mask: a bias by distance, and which keys are looked at"""
ATTENTIONS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
"""Not cuDNN's, which plans anew, half a second forward and backward each, for every shape of a micro-batch: with completions of all lengths they differ."""


class Shared(NamedTuple):
    """Keys (or values) of a layer: of P prompts [P, K, L, D] and of B sequences [B, K, T, D]; how they belong together."""

    prompt: torch.Tensor
    own: torch.Tensor
    layout: Decoding | Learning
    is_sliding: bool


class Scoring(NamedTuple):
    """How a layer makes weights of its scores. sinks_H: of each query head the score of a place that is no token, whose weight is lost (GPT-OSS)."""

    scaling: float
    softcap: float | None = None
    sinks_H: torch.Tensor | None = None

    @property
    def is_plain(self) -> bool:
        """Whether a fused attention knows all of it."""
        return self.softcap is None and self.sinks_H is None

    def capped(self, scores: torch.Tensor) -> torch.Tensor:
        return scores if self.softcap is None else torch.tanh(scores / self.softcap) * self.softcap

    def softmax(self, scores: torch.Tensor) -> torch.Tensor:
        """Weights of float32 scores [B, K, G, L] or [B, H, T, L]."""
        if self.sinks_H is None:
            return scores.softmax(-1)
        heads = scores.shape[1:3] if scores.shape[1] * scores.shape[2] == len(self.sinks_H) else (len(self.sinks_H), 1)
        sinks = self.sinks_H.float().view(1, *heads, 1).expand(*scores.shape[:-1], 1)
        return torch.cat([scores, sinks], -1).softmax(-1)[..., :-1]


@dataclass(frozen=True, slots=True)
class Decoding:
    """One query a sequence. places_B: indices prompt * N + place, distinct. lengths_P: of the prompts. lengths_B: own tokens, the query's included.

    widths: (L, T) of the keys in use. is_copied: each sequence's own keys, L + T of them, begin with its prompt's.
    masks: by is_sliding, what is added to scores [B, K, G, L + T], made when a layer first needs it.
    """

    places_B: torch.Tensor
    num_places: int
    lengths_P: torch.Tensor
    lengths_B: torch.Tensor
    widths: tuple[int, int]
    window: int
    is_copied: bool = False
    masks: dict[bool, torch.Tensor] = field(default_factory=dict)

    def attend(self, query_BHQD: torch.Tensor, keys: Shared, values: Shared, how: Scoring) -> torch.Tensor:
        """[B, 1, H, D]."""
        fast = None if how.sinks_H is not None else attends(query_BHQD, values.own, how.softcap)
        if fast is not None:
            window = self.window if keys.is_sliding else sys.maxsize
            out: torch.Tensor = fast.attend(query_BHQD, (keys.prompt, values.prompt), (keys.own, values.own), self, how.scaling, window, how.softcap)
            return out
        (batch, heads, _, size), kv_heads = query_BHQD.shape, keys.own.shape[1]
        query_BKGD = query_BHQD.reshape(batch, kv_heads, heads // kv_heads, size) * how.scaling
        scores_BKGL = (query_BKGD @ keys.own.transpose(-1, -2)).float()
        if not self.is_copied:
            of_prompt = self.from_prompts(self.to_prompts(query_BKGD, len(keys.prompt)) @ keys.prompt.transpose(-1, -2), heads // kv_heads)
            scores_BKGL = torch.cat([of_prompt.float(), scores_BKGL], -1)
        weights_BKGL = how.softmax(how.capped(scores_BKGL) + self.mask(keys.is_sliding)).to(keys.own.dtype)
        if self.is_copied:
            return (weights_BKGL @ values.own).reshape(batch, 1, heads, -1)
        width = keys.prompt.shape[2]
        prompt_BKGL, own_BKGT = weights_BKGL[..., :width], weights_BKGL[..., width:]
        out_BKGD = own_BKGT @ values.own
        out_BKGD = out_BKGD + self.from_prompts(self.to_prompts(prompt_BKGL, len(keys.prompt)) @ values.prompt, heads // kv_heads)
        return out_BKGD.reshape(batch, 1, heads, -1)

    def mask(self, is_sliding: bool) -> torch.Tensor:
        if is_sliding not in self.masks:
            self.masks[is_sliding] = decoding_mask(is_sliding, self.places_B // self.num_places, self.lengths_P, self.lengths_B, self.widths, self.window)
        return self.masks[is_sliding]

    def to_prompts(self, rows_BKGX: torch.Tensor, prompts: int) -> torch.Tensor:
        """Rows gathered by prompt: [P, K, N * G, X], anything where a place is empty: nobody takes it back."""
        _, kv_heads, group, width = rows_BKGX.shape
        placed = rows_BKGX.new_empty((prompts * self.num_places, kv_heads, group, width)).index_copy_(0, self.places_B, rows_BKGX)
        return placed.view(prompts, self.num_places, kv_heads, group, width).transpose(1, 2).reshape(prompts, kv_heads, -1, width)

    def from_prompts(self, placed_PKMX: torch.Tensor, group: int) -> torch.Tensor:
        """The way back: [B, K, G, X]."""
        prompts, kv_heads, _, width = placed_PKMX.shape
        rows = placed_PKMX.view(prompts, kv_heads, self.num_places, group, width).transpose(1, 2).reshape(-1, kv_heads, group, width)
        return rows.index_select(0, self.places_B)


class Learning(NamedTuple):
    """All T tokens of each tree at once, with gradient. prompts_B: the prompt of each. masks: by is_sliding, allowed pairs [B, 1, T, L + T]."""

    prompts_B: torch.Tensor
    masks: dict[bool, torch.Tensor]

    def attend(self, query_BHQD: torch.Tensor, keys: Shared, values: Shared, how: Scoring) -> torch.Tensor:
        """[B, T, H, D]."""
        group = query_BHQD.shape[1] // keys.own.shape[1]
        joined = [Joined(part.prompt, part.own, self.prompts_B, group) for part in (keys, values)]
        keys_BHLD, values_BHLD = (one.made() for one in joined)
        mask = self.masks[keys.is_sliding]
        if how.is_plain and (mask.is_cuda or mask.shape[-1] > SHORT_TOKENS):
            with made_again(joined, (keys_BHLD, values_BHLD)), sdpa_kernel(ATTENTIONS):
                out = torch.nn.functional.scaled_dot_product_attention(query_BHQD, keys_BHLD, values_BHLD, attn_mask=mask, scale=how.scaling)
        else:
            scores = how.capped((query_BHQD * how.scaling @ keys_BHLD.transpose(-1, -2)).float())
            out = how.softmax(scores.masked_fill(~mask, -torch.inf)).to(query_BHQD.dtype) @ values_BHLD
        return out.transpose(1, 2).contiguous()  # as transformers' own do: some models take a view of it


class Joined(NamedTuple):
    """Keys (or values) of B sequences behind copies of their prompts', for all query heads: [B, H, L + T, D] of [P, K, L, D] and [B, K, T, D]."""

    prompt: torch.Tensor
    own: torch.Tensor
    prompts_B: torch.Tensor
    group: int

    def made(self) -> torch.Tensor:
        full = torch.cat([self.prompt.index_select(0, self.prompts_B), self.own], 2)
        return full.repeat_interleave(self.group, 1) if self.group > 1 else full


def made_again(joined: Sequence[Joined], made: Sequence[torch.Tensor]) -> AbstractContextManager[Any]:
    """Inside, what is `made` is not kept for the backward pass: it is made again there. It is by far larger than what it is made of."""
    bare = [one._replace(prompt=one.prompt.detach(), own=one.own.detach()) for one in joined]
    known = {tensor.untyped_storage().data_ptr(): one for tensor, one in zip(made, bare, strict=True)}

    def pack(tensor: torch.Tensor) -> Any:
        parts = known.get(tensor.untyped_storage().data_ptr())
        return tensor if parts is None else (parts, tensor.size(), tensor.stride(), tensor.storage_offset())

    return torch.autograd.graph.saved_tensors_hooks(pack, unpacked)


def unpacked(packed: Any) -> torch.Tensor:
    if isinstance(packed, torch.Tensor):
        return packed
    parts, size, stride, offset = packed
    with torch.no_grad():
        view: torch.Tensor = parts.made().as_strided(size, stride, offset)
    return view


def decoding_mask(
    is_sliding: bool, prompts_B: torch.Tensor, lengths_P: torch.Tensor, lengths_B: torch.Tensor, widths: tuple[int, int], window: int
) -> torch.Tensor:
    """The mask [B, 1, 1, L + T] of a decode step: 0 where the query may look, else the least float. widths: (L, T)."""
    prompt_B1, own_B1 = lengths_P[prompts_B][:, None], lengths_B[:, None]
    at_L, at_T = (torch.arange(width, device=prompts_B.device) for width in widths)
    prompt_BL, own_BT = at_L < prompt_B1, at_T < own_B1
    if is_sliding:  # the query stands at prompt + own - 1 and sees `window` tokens, itself included
        prompt_BL = prompt_BL & (at_L >= prompt_B1 + own_B1 - window)
        own_BT = own_BT & (at_T >= own_B1 - window)
    allowed = torch.cat([prompt_BL, own_BT], 1)
    return torch.zeros_like(allowed, dtype=torch.float32).masked_fill_(~allowed, torch.finfo(torch.float32).min)[:, None, None]


def learning_masks(
    kinds: Sequence[bool], prompts_B: torch.Tensor, lengths_P: torch.Tensor, width: int, packed: Packed, window: int
) -> dict[bool, torch.Tensor]:
    """Masks of a learning pass: the prompt's tokens, of `width` columns, and those of the own ones that a token goes on from, itself included."""
    prompt_B11 = lengths_P[prompts_B][:, None, None]
    at_L = torch.arange(width, device=prompts_B.device)
    masks = {}
    for is_sliding in kinds:
        prompt_BNL = (at_L < prompt_B11).expand(-1, packed.ids_BN.shape[1], -1)
        if is_sliding:
            prompt_BNL = prompt_BNL & (at_L > prompt_B11 + packed.depths_BN[:, :, None] - window)
        masks[is_sliding] = torch.cat([prompt_BNL, packed.sees(window if is_sliding else None)], 2)[:, None]
    return masks


def attend(
    module: Any,  # noqa: ARG001
    query: torch.Tensor,
    key: Any,
    value: Any,
    attention_mask: Any,
    scaling: float | None = None,
    softcap: float | None = None,
    **more: Any,
) -> tuple[torch.Tensor, None]:
    """The attention function as transformers calls it; what may be looked at is known from the layout. NotImplementedError where it is not."""
    if attention_mask is not None or any(more.get(name) is not None for name in CHOOSING):
        raise NotImplementedError("its layers choose themselves what a token looks at")
    return key.layout.attend(query, key, value, Scoring(query.shape[-1] ** -0.5 if scaling is None else scaling, softcap, more.get("s_aux"))), None


ALL_ATTENTION_FUNCTIONS.register(NAME, attend)


def share_latents(model: Any) -> None:
    """Models with multi-head latent attention (DeepSeek-V2, arXiv 2405.04434) cache a shorter state of all heads and make keys and values of what the cache
    gives back: theirs are made of both parts of a `Shared` too.
    """
    for kind in {type(module) for module in model.modules()}:
        expand = getattr(kind, "expand_kv", None)
        if expand is not None and not hasattr(expand, "__wrapped__"):
            kind.expand_kv = expanding(expand)


def expanding(expand: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(expand)
    def expand_kv(module: Any, latents: Any, rotated: Any) -> Any:
        if not isinstance(latents, Shared):
            return expand(module, latents, rotated)
        of_prompt, own = (expand(module, *pair) for pair in ((latents.prompt, rotated.prompt), (latents.own, rotated.own)))
        return tuple(latents._replace(prompt=prompt, own=mine) for prompt, mine in zip(of_prompt, own, strict=True))

    return expand_kv


@contextmanager
def shared_attention(config: Any) -> Iterator[None]:
    """Inside, the model's layers attend by `Shared` keys; transformers makes no masks for it."""
    before = config._attn_implementation
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
