"""Tiny random models and tokenizers of several families, as Hugging Face folders, and the samples made from them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BioGptConfig,
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    OPTConfig,
    Phi3Config,
    PhimoeConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
    Qwen3MoeConfig,
)

from selftrain.config import PolicySection, UpdateSection
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.torch import TorchPolicy, load_policy
from selftrain.policies.torch.loading import quiet
from selftrain.seeds import Stream
from selftrain.types import Group, Message, Prompt, TrainingSample

torch.set_num_threads(1)  # the matrices are tiny
CHARACTERS = "0123456789+-=;#: abcdefghijklmnopqrstuvwxyz\n"
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
WINDOW: dict[str, Any] = {"head_dim": 8, "sliding_window": 8, "query_pre_attn_scalar": 8}
FAMILIES: dict[str, Any] = {
    "llama": LlamaConfig(**SIZES),
    "llama_wide": LlamaConfig(**SIZES | {"intermediate_size": 160}),
    "llama_tied": LlamaConfig(**SIZES, tie_word_embeddings=True),
    "qwen2": Qwen2Config(**SIZES),
    "qwen3": Qwen3Config(**SIZES, head_dim=8),
    "gemma2": Gemma2Config(**SIZES, **WINDOW),
    "gemma3": Gemma3TextConfig(**SIZES, **WINDOW, layer_types=["sliding_attention", "full_attention"]),
    "gpt2": GPT2Config(vocab_size=48, n_embd=32, n_layer=2, n_head=4, n_positions=128, bos_token_id=1, eos_token_id=2, pad_token_id=0),
}
EXPERTS: dict[str, Any] = {"num_local_experts": 4, "num_experts_per_tok": 2, "router_jitter_noise": 0.5}
SMALL: dict[str, Any] = {name: size for name, size in SIZES.items() if name not in ("intermediate_size", "num_key_value_heads")}
LONGROPE: dict[str, Any] = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0] * 4, "rope_theta": 1e4}
OTHERS: dict[str, Any] = {
    "opt": OPTConfig(**SMALL, ffn_dim=48, word_embed_proj_dim=32, dropout=0.1, attention_dropout=0.1, layerdrop=0.1),
    "biogpt": BioGptConfig(**SMALL, intermediate_size=48, layerdrop=0.4),
    "mixtral": MixtralConfig(**SIZES, **EXPERTS),
    "phimoe": PhimoeConfig(**SIZES, **EXPERTS, input_jitter_noise=0.5),
    "qwen3_moe": Qwen3MoeConfig(**SIZES, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "phi3_long": Phi3Config(**SIZES, original_max_position_embeddings=32, rope_parameters=LONGROPE | {"original_max_position_embeddings": 32, "factor": 4.0}),
}
"""Families that tests name one by one."""
GEMMA4: dict[str, Any] = {
    **SIZES,
    "num_hidden_layers": 4,
    "head_dim": 8,
    "global_head_dim": 16,
    "sliding_window": 8,
    "vocab_size_per_layer_input": 48,
    "hidden_size_per_layer_input": 8,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
}
SINKS: dict[str, Any] = {
    **SIZES,
    "head_dim": 8,
    "sliding_window": 8,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "layer_types": ["sliding_attention", "full_attention"],
    "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
}
LATENT: dict[str, Any] = {
    **SIZES,
    "num_key_value_heads": 4,
    "q_lora_rank": 16,
    "kv_lora_rank": 12,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 4,
    "v_head_dim": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}
AFMOE: dict[str, Any] = {"head_dim": 8, "sliding_window": 8, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "num_hidden_layers": 4}
NEWER: dict[str, Any] = {
    name: getattr(transformers, kind)(**sizes)
    for name, kind, sizes in (
        ("gemma4", "Gemma4TextConfig", GEMMA4),
        ("gemma4_shared", "Gemma4TextConfig", {**GEMMA4, "num_kv_shared_layers": 2}),
        ("gemma3n", "Gemma3nTextConfig", {**GEMMA4, "num_kv_shared_layers": 2}),
        ("afmoe", "AfmoeConfig", {**SIZES, **AFMOE}),
        ("gpt_oss", "GptOssConfig", SINKS),
        ("deepseek_v3", "DeepseekV3Config", LATENT),
    )
    if hasattr(transformers, kind)
}
"""Families that not every version of transformers has: heads of different sizes in one model; layers that use the keys of others; attention taken a view of;
sinks of attention; keys and values that are made of what is cached, and of two sizes."""
PROMPTS = tuple(Prompt(f"p{at}", (Message("user", text),)) for at, text in enumerate(["12+5", "what is 7", "a"]))


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


def write_model(folder: Path, family: str = "llama", seed: int = 0, spread: float = 0.3) -> str:
    """A random model whose next-token distributions are neither flat nor sharp; returns the folder's path."""
    generator = torch.Generator().manual_seed(seed)
    model = AutoModelForCausalLM.from_config((FAMILIES | OTHERS | NEWER)[family], dtype=torch.float32)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            noise = torch.randn(weight.shape, generator=generator) * (spread if weight.ndim > 1 else 0.1)
            weight.copy_(noise + (1.0 if ("norm" in name and "gemma" not in family) or "ln_" in name else 0.0))
    with quiet():
        model.save_pretrained(folder)
    character_tokenizer().save_pretrained(folder)
    return str(folder)


def policy_of(source: str, policy: dict[str, Any] | None = None, update: dict[str, Any] | None = None, cache_mib: int | None = 1024) -> TorchPolicy:
    return load_policy(PolicySection(**(policy or {})), UpdateSection(**(update or {})), source, cache_mib, seed=3)


def requests_for(prompts: Sequence[Prompt] = PROMPTS, count: int = 4, step: int = 0) -> list[SampleRequest]:
    return [SampleRequest(prompt, count, step, at) for at, prompt in enumerate(prompts)]


def groups_of(policy: TorchPolicy, count: int = 4, max_new_tokens: int = 12, temperature: float = 1.0, step: int = 0) -> list[Group]:
    return policy.sample(requests_for(count=count, step=step), SamplingParams(max_new_tokens, temperature), Stream(5, stream="sample"))


def samples_of(groups: Sequence[Group], references: Sequence[Sequence[tuple[float, ...]]] | None = None) -> list[TrainingSample]:
    """Advantages that differ by completion and token; one token of each longer completion is masked."""
    samples = []
    for group in groups:
        for at, done in enumerate(group.completions):
            length = len(done.token_ids)
            advantages = tuple((1.0 if at % 2 else -0.5) + 0.1 * token for token in range(length))
            mask = tuple(token != 2 for token in range(length))
            reference = references[group.index][at] if references else ()
            samples.append(TrainingSample(group.prompt_ids, done.token_ids, advantages, mask, done.logprobs, reference, 0.01, group.index, done.version))
    return samples
