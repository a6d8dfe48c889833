"""From requests to groups with a vLLM engine that holds the weights of one policy version.

A completion is a request of its own: its seed is that of its named stream, and votes of a prompt share the prefill through vLLM's prefix cache. Tokens and
log-probabilities are vLLM's; text and offsets are decoded from the tokens as everywhere. Entropies are absent: vLLM does not give them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from selftrain.errors import PromptError, SamplerError, SelftrainError
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.vllm.engine import Started, sampling_arguments, token_prompts
from selftrain.seeds import Stream
from selftrain.types import Completion, Finish, Group, PolicyVersion, Prompt

FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}
SEEDS = 2**63
"""vLLM's seeds are 64-bit numbers with a sign."""


class Decoder(Protocol):
    """From token ids to text and the offset at which each token ends; special tokens that are written like one of some texts."""

    def decode_with_ends(self, ids: Sequence[int]) -> tuple[str, tuple[int, ...]]: ...

    def special_ids(self, texts: Sequence[str]) -> set[int]: ...


class VllmSampler:
    """Samples from `started.engine`. sleep_level: 0 keeps all its memory between samplings, 1 moves weights to host memory, 2 forgets them."""

    def __init__(
        self,
        started: Started,
        encode: Callable[[Prompt], tuple[int, ...]],
        text: Decoder,
        stop_ids: Iterable[int],
        max_model_tokens: int,
        sleep_level: int,
    ) -> None:
        self.engine, self.make_params = started.engine, started.make_params
        self.encode, self.text, self.stop_ids = encode, text, sorted(stop_ids)
        self.max_model_tokens, self.sleep_level = max_model_tokens, sleep_level
        self.held: PolicyVersion | None = None
        """version of the weights in the engine; None while it holds none that could be sampled from"""
        self._sleeps = False

    def sleep(self) -> None:
        """Give memory to the learner. Forgotten weights are held no longer."""
        if self.sleep_level and not self._sleeps:
            with engine_errors("going to sleep"):
                self.engine.sleep(level=self.sleep_level)
            self._sleeps = True
            if self.sleep_level == 2:
                self.held = None

    def forget(self) -> None:
        """The learner's weights are others than a version says: transfer them before the next sample."""
        self.held = None

    def hold(self, weights: Callable[[], Iterable[tuple[str, Any]]], version: PolicyVersion) -> None:
        """Wake up with the weights of `version`; they are asked for only when the engine holds others."""
        with engine_errors("taking the learner's weights"):
            if self._sleeps:
                self.engine.wake_up(tags=["weights"])
            if self.held != version:
                self.held = None
                self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights())})
                self.engine.reset_prefix_cache()
                self.held = version
            if self._sleeps:
                self.engine.wake_up(tags=["kv_cache"])
                self._sleeps = False

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream, version: PolicyVersion) -> list[Group]:
        """One group per request, in order. Raises SamplerError when the engine does not hold `version`, PromptError for a prompt that is too long."""
        if self._sleeps or self.held != version:
            raise SamplerError(
                f"sampling for the learner at {version}",
                f"the engine holds {'no weights' if self.held is None else self.held}{' and sleeps' if self._sleeps else ''}",
                "transfer the learner's weights first; this is a bug of the caller",
            )
        prompts = [self.encode(request.prompt) for request in requests]
        self._check_lengths(requests, prompts)
        asked, how = [], []
        for request, ids in zip(requests, prompts, strict=True):
            for vote in range(request.count):
                seed = (request.seeds or seeds).at(step=request.step, prompt_id=request.prompt.id, index=vote).seed() % SEEDS
                asked.append(ids)
                how.append(self.make_params(**self._arguments(params, seed, len(ids))))
        with engine_errors("sampling"):
            outputs = self.engine.generate(token_prompts(asked), how, use_tqdm=False)
        done = iter(self._completions(asked, outputs, params.temperature == 0, version))
        return [
            Group(request.step, request.index, request.prompt, ids, tuple(next(done) for _ in range(request.count)))
            for request, ids in zip(requests, prompts, strict=True)
        ]

    def _arguments(self, params: SamplingParams, seed: int, prompt_tokens: int) -> dict[str, Any]:
        return sampling_arguments(
            {
                "temperature": params.temperature,
                "top_p": params.top_p,
                "top_k": params.top_k or 0,
                "min_p": params.min_p,
                "seed": seed,
                "max_tokens": min(params.max_new_tokens, self.max_model_tokens - prompt_tokens),
                "stop": list(params.stop),
                "stop_token_ids": sorted({*self.stop_ids, *self.text.special_ids(params.stop)}),
                "detokenize": bool(params.stop),
            }
        )

    def _check_lengths(self, requests: Sequence[SampleRequest], prompts: Sequence[tuple[int, ...]]) -> None:
        for request, ids in zip(requests, prompts, strict=True):
            if len(ids) >= self.max_model_tokens:
                raise PromptError(
                    f"prompt {request.prompt.id}",
                    f"it has {len(ids)} tokens and the engine takes {self.max_model_tokens}, completion included",
                    "shorten the prompt or raise prompts.max_prompt_tokens",
                )

    def _completions(self, asked: Sequence[tuple[int, ...]], outputs: Sequence[Any], is_greedy: bool, version: PolicyVersion) -> Iterator[Completion]:
        if len(outputs) != len(asked):
            raise unexpected(f"{len(outputs)} outputs for {len(asked)} requests")
        for prompt_ids, output in zip(asked, outputs, strict=True):
            if tuple(output.prompt_token_ids) != prompt_ids:
                raise unexpected("a completion of another prompt than the one asked for")
            yield self._completion(output.outputs[0], is_greedy, version)

    def _completion(self, drawn: Any, is_greedy: bool, version: PolicyVersion) -> Completion:
        ids = tuple(drawn.token_ids)
        if drawn.finish_reason not in FINISHES:
            raise unexpected(f"a completion that ended by {drawn.finish_reason!r}")
        if not ids or drawn.logprobs is None or tuple(drawn.logprobs.token_ids[: len(ids)]) != ids:
            raise unexpected("log-probabilities of other tokens than the sampled ones")
        logprobs = (0.0,) * len(ids) if is_greedy else tuple(drawn.logprobs.logprobs[: len(ids)])
        text, ends = self.text.decode_with_ends(ids)
        return Completion(text, ids, logprobs, ends, (), FINISHES[drawn.finish_reason], version)


def unexpected(what: str) -> SamplerError:
    return SamplerError("vLLM", f"it gave {what}", "see docs/policies.md for the versions of vLLM that its interface was checked against")


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """An error of vLLM, of whatever class, becomes one that names the boundary."""
    try:
        yield
    except SelftrainError:
        raise
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        raise SamplerError(
            f"vLLM, {doing}",
            f"{type(error).__name__}: {words or 'no message'}",
            "for lack of memory lower vllm.memory_frac or vllm.max_sequences, then `selftrain resume`",
        ) from error
