"""The forward passes of a causal language model: prefill, one decode step, and hidden states with their head for learning."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from math import isfinite
from typing import Any

import torch
from transformers.cache_utils import Cache

from selftrain.errors import ModelError
from selftrain.policies.torch.attention import Decoding, share_latents, shared_attention
from selftrain.policies.torch.cache import DecodingCache, numbers_per_token, prompt_cache
from selftrain.policies.torch.fused import fuse
from selftrain.policies.torch.layers import attends_only, windows
from selftrain.policies.torch.loading import LoadedModel, first_line
from selftrain.policies.torch.trees import pairs_per_token
from selftrain.policies.torch.twin import Twin

PREFILL_TOKENS = 16384
"""Padded prompt tokens of one forward pass: bounds the memory of activations, whatever the number of prompts."""


def check_layers(config: Any) -> None:
    """Raises ModelError for layers that sequences cannot share their prompt in."""
    why = "" if attends_only(config) else "some of its layers keep a state other than keys and values"
    if not why and len(windows(config)) > 1:
        why = f"the windows of its layers have different lengths, {', '.join(map(str, sorted(windows(config))))} tokens"
    if why:
        raise ModelError(f"a model of type {config.model_type!r}", why, "give a model of full and sliding-window attention layers, with windows of one length")


class Forward:
    """A model's forward passes under one compute type.

    model: the causal language model itself in float32, adapters included; it stays in evaluation mode. running: what the passes go through: the model, or its
    bfloat16 twin. adapters: peft's wrapper of the model under LoRA. bytes_per_token: of what is cached.
    """

    def __init__(self, loaded: LoadedModel, dtype: str, adapters: Any = None) -> None:
        self.model, self.pad_id, self.config = loaded.model, loaded.pad_id, loaded.model.config
        self.device: torch.device = next(self.model.parameters()).device
        self.dtype = dtype
        self.element_size = 2 if dtype == "bfloat16" else 4
        self.max_positions = usable_positions(self.config.get_text_config(decoder=True))
        self.vocabulary: int = self.model.get_output_embeddings().weight.shape[0]
        check_layers(self.config)
        share_latents(self.model)
        self.window: int = next(iter(windows(self.config)), sys.maxsize)
        self.token_cost = pairs_per_token(self.model)
        self.running, self.adapters, self.twin = self.model, adapters, None
        self.check()
        if dtype == "bfloat16":
            self.twin = Twin(self.model, adapters)
            self.running, self.adapters, self.config = self.twin.model, self.twin.adapters, self.twin.model.config
        if self.device.type == "cuda":
            fuse(self.running)

    def check(self) -> None:
        """Raises ModelError when `hidden` and `head` do not give the model's own logits, or a token sees the ones after it."""
        first, second = (torch.tensor([[self.pad_id, other]], device=self.device) for other in (0, self.vocabulary - 1))
        try:
            with torch.inference_mode():
                logits_TV = self.model(input_ids=first, use_cache=False).logits[0].float()
                mine_TV = self.head(self.hidden(second)[0])
        except Exception as error:
            raise ModelError(
                f"a model of type {self.config.model_type!r}",
                f"a forward pass of two tokens fails: {type(error).__name__}: {first_line(error)}",
                "give a decoder-only model that transformers runs; with policy.lora_rank, try without it",
            ) from error
        scale = float(logits_TV.abs().max()) + 1e-6
        if not isfinite(scale):
            raise ModelError(
                f"a model of type {self.config.model_type!r}",
                "its logits are infinite or no numbers, though its weights are finite",
                "give a model whose weights are not that large",
            )
        if not torch.allclose(mine_TV[0], logits_TV[0], atol=1e-3 * scale, rtol=1e-3):
            raise ModelError(
                f"a model of type {self.config.model_type!r}",
                "its logits depend on later tokens, or are made of its hidden states in a way that is not known here",
                "give a decoder-only model whose head is a linear layer",
            )
        self.check_shared(logits_TV[1], scale)

    def check_shared(self, expected_V: torch.Tensor, scale: float) -> None:
        """Raises ModelError when a token behind a cached prompt does not give the logits of a plain forward pass."""
        zero, why = torch.zeros(1, dtype=torch.int64, device=self.device), "its attention is not exchangeable in transformers"
        try:
            with torch.inference_mode():
                prompts, cache = prompt_cache(self.config), DecodingCache(self.config)
                self.prompts([(self.pad_id,)], prompts)
                cache.store([0], prompts, 1)
                cache.make_room(1, 1, 1)
                layout = Decoding(zero, 1, zero + 1, zero + 1, (1, 1), self.window)
                for layer in cache.layers:
                    layer.at(zero, zero, (1, 1, 1), layout)
                mine_V = self.decode(zero, zero + 1, cache)[0].float()
            fits = torch.allclose(mine_V, expected_V, atol=1e-3 * scale, rtol=1e-3)
            self.bytes_per_token = self.element_size * numbers_per_token(self.config, cache)
        except NotImplementedError as error:
            fits, why = False, first_line(error)
        except (AttributeError, TypeError, RuntimeError, IndexError, ValueError):
            fits = False
        if not fits:
            raise ModelError(
                f"a model of type {self.config.model_type!r}",
                f"{why}, so sequences cannot share their prompt",
                "give a model whose attention goes through transformers' attention interface (Llama, Qwen, Gemma, SmolLM, Mistral, Phi, GPT-2 ...)",
            )

    def refresh(self) -> None:
        """After the weights of `model` have changed: what is run is what was learned."""
        if self.twin is not None:
            self.twin.refresh()

    def without_adapters(self) -> AbstractContextManager[Any]:
        """A context in which the passes go through the start, under LoRA."""
        return self.adapters.disable_adapter() if self.adapters is not None else nullcontext()

    def prompt_parts(self, lengths: Sequence[int]) -> list[slice]:
        """Slices of prompts that are run in one pass: at most `PREFILL_TOKENS` padded tokens, or one prompt."""
        parts, begin = [], 0
        for end in range(1, len(lengths) + 1):
            if end == len(lengths) or (end + 1 - begin) * max(lengths[begin : end + 1]) > PREFILL_TOKENS:
                parts.append(slice(begin, end))
                begin = end
        return parts

    def prompts(self, prompts: Sequence[tuple[int, ...]], cache: Cache) -> torch.Tensor:
        """Hidden states [P, H] of each prompt's last token; the cache receives keys and values of all."""
        width = max(len(ids) for ids in prompts)
        ids_PL = torch.tensor([[*ids, *[self.pad_id] * (width - len(ids))] for ids in prompts], device=self.device)
        hidden_PLH = self._decoder(ids_PL, torch.arange(width, device=self.device)[None], cache)
        return hidden_PLH[torch.arange(len(prompts), device=self.device), [len(ids) - 1 for ids in prompts]]

    def decode(self, tokens_B: torch.Tensor, positions_B: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Logits [B, V], in the type of the arithmetic, after one more token at these positions."""
        with shared_attention(self.config):
            hidden_BTH = self._decoder(tokens_B[:, None], positions_B[:, None], cache)
        return self.logits(hidden_BTH[:, 0])

    def after_prompts(self, ids_BT: torch.Tensor, positions_BT: torch.Tensor, cache: Cache) -> torch.Tensor:
        """Hidden states [B, T, H] of tokens that go on from the prompts in a learning cache."""
        with shared_attention(self.config):
            return self._decoder(ids_BT, positions_BT, cache)

    def _decoder(self, ids_BT: torch.Tensor, positions_BT: torch.Tensor, cache: Cache) -> torch.Tensor:
        output = self.running.get_decoder()(input_ids=ids_BT, position_ids=positions_BT, past_key_values=cache, use_cache=True)
        hidden_BTH: torch.Tensor = output.last_hidden_state
        return hidden_BTH

    def hidden(self, ids_BT: torch.Tensor) -> torch.Tensor:
        """Hidden states [B, T, H] before the head. Sequences are padded on the right, where causal attention never looks, so no mask is needed."""
        hidden_BTH: torch.Tensor = self.running.get_decoder()(input_ids=ids_BT, use_cache=False).last_hidden_state
        return hidden_BTH

    def head(self, hidden_KH: torch.Tensor) -> torch.Tensor:
        """Float32 logits [K, V] of hidden states [K, H]."""
        return self.logits(hidden_KH).float()

    def logits(self, hidden_KH: torch.Tensor) -> torch.Tensor:
        """The same in the type of the arithmetic."""
        logits_KV: torch.Tensor = scaled_logits(self.config, self.running.get_output_embeddings()(hidden_KH))
        return logits_KV


def usable_positions(config: Any) -> int | None:
    """Positions at which a token is treated alike whatever it is batched with; None: any. Where rotary factors are chosen by the longest sequence of a batch
    (longrope), those that the short factors are for.
    """
    most: int | None = getattr(config, "max_position_embeddings", None)
    rope: dict[str, Any] = getattr(config, "rope_parameters", None) or {}
    for kind in (rope, *(one for one in rope.values() if isinstance(one, dict))):  # one for all layers, or one for each kind of them
        if kind.get("rope_type") == "longrope":
            original = kind.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", None)
            most = min(filter(None, (most, original)), default=None)
    return most


def scaled_logits(config: Any, logits: torch.Tensor) -> torch.Tensor:
    """What some families do to the head's output: a soft cap (Gemma 2), a divisor (Granite), a factor (Cohere)."""
    text = config.get_text_config(decoder=True)
    cap, divisor, factor = (getattr(text, name, None) for name in ("final_logit_softcapping", "logits_scaling", "logit_scale"))
    if cap is not None:
        logits = torch.tanh(logits / cap) * cap
    if divisor is not None:
        logits = logits / divisor
    return logits if factor is None else logits * factor
