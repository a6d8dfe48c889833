"""Tiny random models and tokenizers of several families, as Hugging Face folders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

CHARACTERS = "0123456789+-=;#? abcdefghijklmnopqrstuvwxyz\n"
TEMPLATE = "{% for message in messages %}{{ message['role'][0] }}:{{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}"
SIZES: dict[str, Any] = {
    "vocab_size": 48,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "llama_tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma2": Gemma2Config(**SIZES, head_dim=8, sliding_window=8, query_pre_attn_scalar=8),
    "gemma3": Gemma3TextConfig(**SIZES, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention"], query_pre_attn_scalar=8),
    "gpt2": GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2, pad_token_id=0),
}


def character_tokenizer(**special: Any) -> PreTrainedTokenizerFast:
    """One token a character; 0 pad, 1 begin, 2 end, 3 unknown."""
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3} | {character: at for at, character in enumerate(CHARACTERS, start=4)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern="", behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    named = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | special
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **{name: token for name, token in named.items() if token is not None})
    fast.chat_template = TEMPLATE
    return fast


def write_model(folder: Path, family: str = "llama", seed: int = 0, spread: float = 0.4, **special: Any) -> str:
    """A random model whose next-token distributions are neither flat nor sharp; returns the folder's path."""
    config = FAMILIES[family]
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * (spread if weight.ndim > 1 else 0.1))
    model.save_pretrained(folder)
    character_tokenizer(**special).save_pretrained(folder)
    return str(folder)
