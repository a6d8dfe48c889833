"""What is used of vLLM, as a protocol with vLLM's own names, and the start of a real engine.

tests/policies/test_vllm_signatures.py compares every name and argument below with the source of the installed vLLM.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from selftrain.errors import MissingExtraError


class Engine(Protocol):
    """The part of `vllm.LLM` that a sampler needs."""

    def generate(self, prompts: Any, sampling_params: Any, *, use_tqdm: bool) -> list[Any]:
        """One RequestOutput a prompt, in order: `prompt_token_ids` and `outputs[0]` with token_ids, logprobs, finish_reason."""
        ...

    def collective_rpc(self, method: str, timeout: float | None = None, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> list[Any]:
        """Call a method of the worker: `reload_weights(weights_iterator=...)` writes weights over those it holds, in place."""
        ...

    def sleep(self, level: int = 1) -> Any:
        """Give GPU memory back: 1 moves the weights to host memory, 2 forgets them; keys and values are forgotten in both."""
        ...

    def wake_up(self, tags: list[str] | None = None) -> Any:
        """Take the memory of `weights` or `kv_cache` again."""
        ...

    def reset_prefix_cache(self) -> Any:
        """Forget the keys and values of prompts: they are those of other weights."""
        ...


@dataclass(frozen=True, slots=True)
class Started:
    """An engine and vLLM's class of sampling parameters."""

    engine: Engine
    make_params: Callable[..., Any]


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """dtype: float32 or bfloat16. max_model_tokens: prompt and completion. max_sequences: side by side. memory_frac: share of the GPU's memory."""

    dtype: str
    max_model_tokens: int
    max_sequences: int
    memory_frac: float


def engine_arguments(source: str, settings: EngineSettings) -> dict[str, Any]:
    """Arguments of `vllm.LLM`: no weights are read (the learner's are transferred before the first sample) and log-probabilities are those sampled from."""
    return {
        "model": source,
        "load_format": "dummy",
        "dtype": settings.dtype,
        "max_model_len": settings.max_model_tokens,
        "max_num_seqs": settings.max_sequences,
        "gpu_memory_utilization": settings.memory_frac,
        "enable_sleep_mode": True,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "generation_config": "vllm",
        "tensor_parallel_size": 1,
    }


def sampling_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `vllm.SamplingParams` for one completion: its own seed, its own stops, one log-probability a token."""
    return {"n": 1, "logprobs": 0, "flat_logprobs": True, "ignore_eos": True, "include_stop_str_in_output": True, "skip_special_tokens": True, **values}


def token_prompts(prompts: Sequence[Sequence[int]]) -> list[dict[str, list[int]]]:
    """Prompts as vLLM takes token ids."""
    return [{"prompt_token_ids": list(ids)} for ids in prompts]


def start_engine(source: str, settings: EngineSettings) -> Started:
    """A vLLM engine in this process, so that weights are handed over as tensors. Raises MissingExtraError."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    try:
        from vllm import LLM, SamplingParams
    except (ImportError, OSError) as error:
        raise missing(error) from error
    return Started(LLM(**engine_arguments(source, settings)), SamplingParams)


def missing(error: BaseException | None = None) -> MissingExtraError:
    why = f"vLLM is not installed or cannot be loaded ({error})" if error else "vLLM is not installed"
    return MissingExtraError("policy.sampler = vllm", why, "install selftrain[vllm] on a machine with a GPU, or set --policy.sampler torch")
