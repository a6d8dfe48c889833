"""An engine without a GPU, for tests: it draws from any function of weights and tokens to logits and is strict where vLLM would go wrong silently.

It refuses to sample asleep, without weights, or with keys and values of other weights; it refuses sampling parameters it does not know.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from selftrain.policies.vllm.engine import Started

Logits = Callable[[Mapping[str, Any], Sequence[int]], Any]
"""Weights by name and the tokens so far -> V logits of the next token."""


@dataclass(frozen=True, slots=True)
class FakeParams:
    """The sampling parameters that are used of vLLM, by the same names."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    max_tokens: int
    stop: list[str]
    stop_token_ids: list[int]
    detokenize: bool
    logprobs: int
    flat_logprobs: bool
    ignore_eos: bool
    include_stop_str_in_output: bool
    skip_special_tokens: bool


@dataclass(slots=True)
class FakeLogprobs:
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)


@dataclass(slots=True)
class FakeCompletion:
    token_ids: list[int]
    logprobs: FakeLogprobs
    finish_reason: str
    stop_reason: int | str | None


@dataclass(slots=True)
class FakeOutput:
    prompt_token_ids: list[int]
    outputs: list[FakeCompletion]


class FakeEngine:
    """logits: the model. decode: token ids to text, for stop texts. calls: what was asked of it, in order."""

    def __init__(self, logits: Logits, decode: Callable[[Sequence[int]], str]) -> None:
        self.logits, self.decode = logits, decode
        self.weights: dict[str, Any] = {}
        self.calls: list[str] = []
        self.params: list[FakeParams] = []
        self._awake = {"weights", "kv_cache"}
        self._prefixes_stale = False

    def started(self) -> Started:
        return Started(self, FakeParams)

    def generate(self, prompts: Sequence[Mapping[str, list[int]]], sampling_params: Sequence[FakeParams], *, use_tqdm: bool) -> list[FakeOutput]:  # noqa: ARG002
        self.calls.append(f"generate {len(prompts)}")
        if self._awake != {"weights", "kv_cache"} or not self.weights or self._prefixes_stale:
            raise RuntimeError(f"awake: {sorted(self._awake)}, {len(self.weights)} weights, prefixes stale: {self._prefixes_stale}")
        self.params = list(sampling_params)
        pairs = zip(prompts, sampling_params, strict=True)
        return [FakeOutput(prompt["prompt_token_ids"], [self._complete(prompt["prompt_token_ids"], params)]) for prompt, params in pairs]

    def collective_rpc(self, method: str, timeout: float | None = None, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> list[Any]:
        self.calls.append(method)
        if method != "reload_weights" or timeout is not None or args or kwargs is None or set(kwargs) != {"weights_iterator"}:
            raise RuntimeError(f"a worker has no {method}({args}, {kwargs})")
        if "weights" not in self._awake:
            raise RuntimeError("weights were handed to an engine that has no memory for them")
        weights: Iterable[tuple[str, Any]] = kwargs["weights_iterator"]
        self.weights = dict(weights)
        self._prefixes_stale = True
        return [None]

    def sleep(self, level: int = 1) -> None:
        self.calls.append(f"sleep {level}")
        self._awake = set()
        if level == 2:
            self.weights = {}

    def wake_up(self, tags: list[str] | None = None) -> None:
        self.calls.append(f"wake_up {' '.join(tags or ['all'])}")
        self._awake |= set(tags or ("weights", "kv_cache"))

    def reset_prefix_cache(self) -> None:
        self.calls.append("reset_prefix_cache")
        self._prefixes_stale = False

    def _complete(self, prompt: Sequence[int], params: FakeParams) -> FakeCompletion:
        generator = np.random.Generator(np.random.Philox(key=params.seed))
        drawn: list[int] = []
        logprobs = FakeLogprobs()
        for _ in range(params.max_tokens):
            logits = np.asarray(self.logits(self.weights, [*prompt, *drawn]), dtype=np.float64)
            scaled = logits / (params.temperature or 1.0)
            table = scaled - np.logaddexp.reduce(scaled)
            uniform = generator.random()
            token = int(np.searchsorted(np.cumsum(np.exp(table)), uniform, side="right")) if params.temperature else int(table.argmax())
            token = min(token, len(table) - 1)
            drawn.append(token)
            logprobs.token_ids.append(token)
            logprobs.logprobs.append(float(table[token]))
            if token in params.stop_token_ids:
                return FakeCompletion(drawn, logprobs, "stop", token)
            found = [stop for stop in params.stop if stop in self.decode(drawn)]
            if found:
                return FakeCompletion(drawn, logprobs, "stop", found[0])
        return FakeCompletion(drawn, logprobs, "length", None)
