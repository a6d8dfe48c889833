"""The forward passes of a causal language model: prefill, one decode step, and hidden states with their head for learning."""

from __future__ import annotations

import inspect
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from selftrain.errors import ModelError
from selftrain.policies.torch.cache import SamplingCache, attends_only
from selftrain.policies.torch.loading import LoadedModel

PREFILL_TOKENS = 16384
"""Padded prompt tokens of one forward pass: bounds the memory of activations, whatever the number of prompts."""


class Forward:
    """A model's forward passes under one compute type. `model` is the causal language model itself, adapters included; it stays in evaluation mode."""

    def __init__(self, loaded: LoadedModel, dtype: str) -> None:
        self.model, self.pad_id, self.config = loaded.model, loaded.pad_id, loaded.model.config
        self.device: torch.device = next(self.model.parameters()).device
        self.dtype = dtype
        self.takes_positions = "position_ids" in inspect.signature(self.model.forward).parameters
        self.max_positions: int | None = getattr(self.config.get_text_config(decoder=True), "max_position_embeddings", None)
        self.vocabulary: int = self.model.get_output_embeddings().weight.shape[0]
        text = self.config.get_text_config(decoder=True)
        self.window: int = getattr(text, "sliding_window", None) or sys.maxsize
        self.takes_whole_mask = getattr(text, "rope_parameters", None) is not None and self.config._attn_implementation == "sdpa"
        if not attends_only(self.config):
            raise ModelError(
                f"a model of type {self.config.model_type!r}",
                "some of its layers keep a state other than keys and values",
                "give a model of full and sliding-window attention layers",
            )
        self.check()

    def check(self) -> None:
        """Raises ModelError when `hidden` and `head` do not give the model's own logits, or a token sees the ones after it."""
        first, second = (torch.tensor([[self.pad_id, other]], device=self.device) for other in (0, self.vocabulary - 1))
        with torch.inference_mode():
            logits_TV = self.model(input_ids=first, use_cache=False).logits[0].float()
            mine_TV = self.head(self.hidden(second)[0])
        scale = float(logits_TV.abs().max()) + 1e-6
        if not torch.allclose(mine_TV[0], logits_TV[0], atol=1e-3 * scale, rtol=1e-3):
            raise ModelError(
                f"a model of type {self.config.model_type!r}",
                "its logits depend on later tokens, or are made of its hidden states in a way that is not known here",
                "give a decoder-only model whose head is a linear layer",
            )

    def autocast(self) -> AbstractContextManager[Any]:
        """bfloat16 arithmetic on float32 weights where asked, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.dtype == "bfloat16" else nullcontext()

    def prefill(self, ids_PT: torch.Tensor, pads_P: torch.Tensor, cache: SamplingCache) -> torch.Tensor:
        """Logits [P, V] after each prompt. ids_PT: padded on the left by pads_P tokens; the cache receives P rows of T columns, some rows at a time."""
        positions_PT = (torch.arange(ids_PT.shape[1], device=self.device) - pads_P[:, None]).clamp(min=0)
        rows, parts = max(1, PREFILL_TOKENS // ids_PT.shape[1]), []
        for first in range(0, len(ids_PT), rows):
            part = slice(first, first + rows)
            cache.fill(first, len(ids_PT[part]), len(ids_PT))
            parts.append(self._cached(ids_PT[part], positions_PT[part], pads_P[part], cache))
        return torch.cat(parts)

    def decode(self, tokens_B: torch.Tensor, pads_B: torch.Tensor, column: int, cache: SamplingCache) -> torch.Tensor:
        """Logits [B, V] after one more token, which goes into `column` of the cache."""
        return self._cached(tokens_B[:, None], (column - pads_B)[:, None], pads_B, cache)

    def _cached(self, ids_BT: torch.Tensor, positions_BT: torch.Tensor, pads_B: torch.Tensor, cache: SamplingCache) -> torch.Tensor:
        columns = cache.get_seq_length() + ids_BT.shape[1]
        mask = torch.arange(columns, device=self.device) >= pads_B[:, None]
        if ids_BT.shape[1] == 1 and self.takes_whole_mask and columns <= self.window:
            mask = mask[:, None, None]  # in its final form [B, 1, 1, columns], which saves transformers making one a step
        extra = {"position_ids": positions_BT} if self.takes_positions else {}
        output = self.model(input_ids=ids_BT, attention_mask=mask, past_key_values=cache, use_cache=True, logits_to_keep=1, **extra)
        logits_BV: torch.Tensor = output.logits[:, -1]
        return logits_BV

    def hidden(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, T, H] before the head. Sequences are padded on the right, where causal attention never looks, so no mask is needed."""
        hidden_BTH: torch.Tensor = self.model.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
        return hidden_BTH

    def head(self, hidden_KH: torch.Tensor) -> torch.Tensor:
        """Float32 logits [K, V] of hidden states [K, H]."""
        logits_KV: torch.Tensor = scaled_logits(self.config, self.model.get_output_embeddings()(hidden_KH))
        return logits_KV.float()


def scaled_logits(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """What some families do to the head's output: a soft cap (Gemma 2), a divisor (Granite), a factor (Cohere)."""
    text = config.get_text_config(decoder=True)
    cap, divisor, factor = (getattr(text, name, None) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"))
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    if divisor is not None:
        logits = logits / divisor
    return logits if factor is None else logits * factor
