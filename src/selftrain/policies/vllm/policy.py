"""`VllmPolicy`: a torch policy whose samples come from a vLLM engine with the same weights."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.errors import SamplerError
from selftrain.objective import Objective
from selftrain.policies.base import Sampler, SampleRequest, SamplingParams, UpdateStats
from selftrain.policies.torch import TorchPolicy
from selftrain.policies.torch.text import TextDecoder
from selftrain.policies.torch.transfer import transferred
from selftrain.policies.vllm.engine import EngineSettings, missing, start_engine
from selftrain.policies.vllm.sampler import VllmSampler
from selftrain.seeds import Stream
from selftrain.types import Group, PolicyVersion, Prompt, TrainingSample

MAX_GAP_NATS = 0.5
"""Mean distance between the engine's and the learner's log-probabilities in the first samples of a process above which the engine holds other weights;
bfloat16 against float32 makes some hundredths."""
CHECKED_COMPLETIONS = 8
ROOM = 2
"""times the longest prompt and completion: what a judge is given is longer than a training prompt"""


def check_installed() -> None:
    """Raises MissingExtraError, before a model is loaded, when there is no vLLM."""
    if find_spec("vllm") is None:
        raise missing()


def with_vllm(policy: TorchPolicy, config: RunConfig, source: str) -> VllmPolicy:
    """The policy with its samples drawn by a vLLM engine that is started here. source: the folder or hub id it was loaded from."""
    context = policy.forward.max_positions
    wanted = ROOM * (config.prompts.max_prompt_tokens + config.rollout.max_new_tokens)
    settings = EngineSettings(
        dtype=config.policy.compute_dtype,
        max_model_tokens=wanted if context is None else min(wanted, context),
        max_sequences=config.vllm.max_sequences,
        memory_frac=config.vllm.memory_frac,
    )
    started = start_engine(source, settings)
    text = TextDecoder(policy.tokenizer)
    sampler = VllmSampler(started, policy.encode, text, policy.sampler.stop_ids, settings.max_model_tokens, config.vllm.sleep_level)
    sampler.sleep()
    return VllmPolicy(policy, sampler, config.policy.compute_dtype)


class VllmPolicy:
    """Implements `policies.base.Policy`. The engine is awake inside `sample` only, and there it holds the learner's version or nothing is drawn."""

    def __init__(self, learner: TorchPolicy, sampler: VllmSampler, dtype: str) -> None:
        self.learner, self.sampler, self.dtype = learner, sampler, dtype
        self._checked = False

    @property
    def version(self) -> PolicyVersion:
        return self.learner.version

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        """As the learner's, and of what the engine takes."""
        limit = self.sampler.max_model_tokens - 1
        return self.learner.too_long(prompts, limit if max_prompt_tokens is None else min(limit, max_prompt_tokens))

    def base(self) -> Sampler:
        """The frozen start, sampled by torch: the engine holds one set of weights."""
        return self.learner.base()

    def ema(self) -> Sampler:
        """The moving average of the learner's weights, sampled by torch as the start is."""
        return self.learner.ema()

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        """One group per request, in order; entropies are absent. Raises PromptError or SamplerError."""
        self.sampler.hold(lambda: transferred(self.learner.forward.model, self.learner.adapters is not None, self.dtype), self.version)
        groups = self.sampler.sample(requests, params, seeds, self.version)
        self.sampler.sleep()
        if not self._checked and params.temperature > 0 and params.top_p == 1 and params.top_k is None and params.min_p == 0:
            self._check_weights(groups, params.temperature)
            self._checked = True
        return groups

    def _check_weights(self, groups: Sequence[Group], temperature: float) -> None:
        """Score some of the first samples with the learner. Raises SamplerError when they cannot be from its weights."""
        some = [Group(group.step, group.index, group.prompt, group.prompt_ids, group.completions[:1]) for group in islice(groups, CHECKED_COMPLETIONS)]
        scored = self.learner.logprobs(some, temperature)
        gaps = [abs(mine - its) for group, values in zip(some, scored, strict=True) for mine, its in zip(values[0], group.completions[0].logprobs, strict=True)]
        mean_gap = sum(gaps) / len(gaps)
        if not mean_gap <= MAX_GAP_NATS:
            raise SamplerError(
                f"log-probabilities of vLLM that differ by {mean_gap:.2f} nats from the learner's",
                f"above {MAX_GAP_NATS} nats the engine does not hold the learner's weights, or runs another model than the learner",
                "set --policy.sampler torch, and report the model's architecture and the version of vLLM",
            )

    def reference_logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        return self.learner.reference_logprobs(groups, temperature)

    def logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        return self.learner.logprobs(groups, temperature)

    def update(self, samples: Sequence[TrainingSample], objective: Objective, learning_rate: float) -> UpdateStats:
        return self.learner.update(samples, objective, learning_rate)

    def save(self, folder: Path) -> None:
        self.learner.save(folder)

    def save_optimizer(self, folder: Path) -> None:
        self.learner.save_optimizer(folder)

    def load(self, folder: Path) -> None:
        """Other weights may have the version that the engine holds, so they are transferred before the next sample."""
        self.sampler.forget()
        self.learner.load(folder)

    def restart(self) -> None:
        """As `load`."""
        self.sampler.forget()
        self.learner.restart()

    def weights_hash(self) -> str:
        return self.learner.weights_hash()

    def start_branch(self, branch: int) -> None:
        self.learner.start_branch(branch)
