"""`TorchPolicy`: sampler and learner over one set of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from selftrain.config import PolicySection, UpdateSection
from selftrain.errors import UpdateError
from selftrain.objective import Objective
from selftrain.policies.base import SampleRequest, SamplingParams, UpdateStats
from selftrain.policies.torch import checkpoint
from selftrain.policies.torch.average import WeightAverage, load_average
from selftrain.policies.torch.encoding import Encoder, check_format
from selftrain.policies.torch.forward import Forward, check_layers
from selftrain.policies.torch.graphs import graphs_for
from selftrain.policies.torch.hardware import default_cache_mib
from selftrain.policies.torch.learner import TorchLearner
from selftrain.policies.torch.loading import LoadedModel, load_model, load_weights
from selftrain.policies.torch.logprobs import score
from selftrain.policies.torch.lora import add_adapters
from selftrain.policies.torch.sampler import TorchSampler
from selftrain.policies.torch.text import TextDecoder
from selftrain.policies.torch.trees import TokenSequence
from selftrain.seeds import Stream
from selftrain.types import Group, PolicyVersion, Prompt, TrainingSample


def load_policy(config: PolicySection, update: UpdateSection, source: str, cache_mib: int | None = None, seed: int = 0, ema_decay: float = 0.95) -> TorchPolicy:
    """The policy of a Hugging Face folder or hub id `source` (config.model is not read: the caller has resolved `embedded:` names).

    seed: of the adapters' start under LoRA; nothing else is random. ema_decay: of the average that `ema` samples from.
    A CPU policy with config.num_threads sets torch's thread count for the process.
    Raises ConfigError, ModelError, MissingExtraError (LoRA without peft).
    """
    check_format(config)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    return TorchPolicy(load_model(source, config), config, update, source, cache_mib, seed, ema_decay)


class TorchPolicy:
    """Implements `policies.base.Policy`. Weights are float32; `config.compute_dtype` is the type of the arithmetic. No dropout, ever.

    A sample may be `max_stale_updates` updates older than the learner: as many as the config's minibatches and epochs make.
    """

    def __init__(
        self, loaded: LoadedModel, config: PolicySection, update: UpdateSection, source: str, cache_mib: int | None, seed: int, ema_decay: float
    ) -> None:
        self.source, self.config, self._ema_decay = source, config, ema_decay
        self.tokenizer, self.pad_id = loaded.tokenizer, loaded.pad_id
        self.adapters: Any = None
        if config.lora_rank is not None:
            adapter_seed = Stream(seed).at(stream="lora").seed()
            check_layers(loaded.model.config)
            self.adapters = add_adapters(loaded.model, config.lora_rank, config.lora_alpha, adapter_seed)
        self.encoder = Encoder(loaded.tokenizer, config)
        self.forward = Forward(loaded, config.compute_dtype, self.adapters)
        room_mib = cache_mib or default_cache_mib(self.forward.device)
        self.sampler = TorchSampler(self.forward, self.encoder, TextDecoder(loaded.tokenizer), loaded.stop_ids, room_mib, graphs_for(self.forward))
        self.learner = TorchLearner(self.forward, update, config.gradient_checkpointing)
        self._first_adapters = {name: weight.detach().clone() for name, weight in self.learner.weights.items()} if self.adapters is not None else {}
        self.max_stale_updates = update.num_minibatches * update.num_epochs - 1
        self._version = PolicyVersion(0, 0)
        self._reference: Forward | None = None
        self.base_graphs = graphs_for(self.forward)  # made when the start is sampled from; under LoRA its steps leave the adapters out
        self._average: WeightAverage | None = None

    @property
    def version(self) -> PolicyVersion:
        return self._version

    def encode(self, prompt: Prompt) -> tuple[int, ...]:
        """The token ids the policy is given for this prompt."""
        return self.encoder.encode(prompt)

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        """(prompt id, length in tokens) of every prompt above the limit, or so long that the model's context has no room for a completion."""
        limits = [limit for limit in (max_prompt_tokens, self.forward.max_positions and self.forward.max_positions - 1) if limit is not None]
        return self.encoder.too_long(prompts, min(limits, default=None))

    def base(self) -> TorchBase:
        """The frozen start as a sampler; without LoRA the first sample loads the start once more and keeps it: 4 bytes for each weight."""
        return TorchBase(self)

    def ema(self) -> TorchAverage:
        """The moving average of the trained weights as a sampler. It is kept from the first call on: 4 bytes for each of them."""
        if self._average is None:
            self._average = WeightAverage(self.learner.weights, self._ema_decay)
        return TorchAverage(self, self._average)

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        """One group per request, in order. Raises PromptError when a prompt leaves no room for a completion."""
        return self.sampler.sample(requests, params, seeds, self._version)

    def reference_logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        """[P][N][T] log-probabilities in nats under the start.

        Under LoRA the adapters are switched off. Otherwise the first call loads the start once more and keeps it: 4 bytes for each weight.
        """
        with self.forward.without_adapters():
            return self._logprobs_of(self.start(), groups, temperature)

    def logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        """[P][N][T] log-probabilities in nats under the weights as they are."""
        return self._logprobs_of(self.forward, groups, temperature)

    def _logprobs_of(self, forward: Forward, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        sequences = [TokenSequence(group.prompt_ids, done.token_ids, range(len(done.token_ids))) for group in groups for done in group.completions]
        values = iter(score(forward, sequences, temperature, self.learner.tokens_per_microbatch))
        return [[next(values) for _ in group.completions] for group in groups]

    def update(self, samples: Sequence[TrainingSample], objective: Objective, learning_rate: float) -> UpdateStats:
        """One optimizer step. Raises UpdateError, before a weight moves: not finite, no samples, or sampled by a version too old or of another branch."""
        if not samples:
            raise UpdateError("an update without samples", "there is nothing to learn from", "skip the update of a step in which no group was admitted")
        for version in {sample.version for sample in samples}:
            age = self._version.updates - version.updates
            if version.branch != self._version.branch or not 0 <= age <= self.max_stale_updates:
                raise UpdateError(
                    f"a completion of policy version {version} for the learner at {self._version}",
                    f"it may be at most {self.max_stale_updates} updates old and must be of the same branch",
                    "sample anew, or name several updates a step in update.num_minibatches or update.num_epochs",
                )
        stats = self.learner.update(samples, objective, learning_rate)
        self._version = PolicyVersion(self._version.branch, self._version.updates + 1)
        if self._average is not None:
            self._average.follow()
        return stats

    def save(self, folder: Path) -> None:
        """A complete Hugging Face folder, adapters merged. Raises StorageError."""
        checkpoint.save_model(folder, self.forward.model, self.tokenizer, has_adapters=self.adapters is not None)

    def save_optimizer(self, folder: Path) -> None:
        """Moments, version and the average where one is kept, under LoRA the adapters too, into the same folder. Raises StorageError."""
        checkpoint.save_learner(folder, self.learner, self._version, has_adapters=self.adapters is not None)
        if self._average is not None:
            self._average.save(folder)

    def load(self, folder: Path) -> None:
        """Go on exactly from `save` and `save_optimizer`; the reference stays the start. Raises CheckpointError and then changes nothing."""
        average = load_average(folder, self.learner.weights, self._ema_decay)
        self._version = checkpoint.load_learner(folder, self.learner, has_adapters=self.adapters is not None)
        self.forward.refresh()
        self._average = average

    def restart(self) -> None:
        """The policy as it was before the first update, without a second one: weights are written over, and what is recorded of them on a GPU stays.

        They are read from `source` once more: the frozen start in memory may be rounded. Raises ModelError when the source is gone.
        """
        first = self._first_adapters if self.adapters is not None else dict(self._load_start().named_parameters())
        with torch.no_grad():
            for name, weight in self.learner.weights.items():
                weight.copy_(first[name])
        self.learner.restart()
        self.forward.refresh()
        self._average, self._version = None, PolicyVersion(0, 0)

    def weights_hash(self) -> str:
        """SHA-256 over names, types, shapes and bytes of all weights, in name order."""
        return checkpoint.weights_hash(self.forward.model)

    def start_branch(self, branch: int) -> None:
        """After a rollback: later versions carry this branch."""
        self._version = PolicyVersion(branch, self._version.updates)

    def start(self) -> Forward:
        """The frozen start, read from `source` when first asked for; under LoRA the weights below the adapters, to be used `without_adapters`."""
        if self.adapters is not None:
            return self.forward
        if self._reference is None:
            model = self._load_start().to(self.forward.device).requires_grad_(False)
            self._reference = Forward(LoadedModel(model, self.tokenizer, self.pad_id, frozenset()), self.config.compute_dtype)
        return self._reference

    def _load_start(self) -> Any:
        return load_weights(self.source, Path(self.source).is_dir())


@dataclass(frozen=True, slots=True)
class TorchBase:
    """Implements `policies.base.Sampler`: the frozen start of a policy, drawn from like the policy itself."""

    policy: TorchPolicy

    @property
    def version(self) -> PolicyVersion:
        return PolicyVersion(0, 0)

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        """One group per request, in order. Raises PromptError when a prompt leaves no room for a completion."""
        sampler = replace(self.policy.sampler, forward=self.policy.start(), graphs=self.policy.base_graphs)
        with self.policy.forward.without_adapters():
            return sampler.sample(requests, params, seeds, self.version)


@dataclass(frozen=True, slots=True)
class TorchAverage:
    """Implements `policies.base.Sampler`: the moving average of a policy's weights, which takes their place while it draws."""

    policy: TorchPolicy
    average: WeightAverage

    @property
    def version(self) -> PolicyVersion:
        return self.policy.version

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        """One group per request, in order. Raises PromptError when a prompt leaves no room for a completion."""
        with self.average.in_place(self.policy.forward.refresh):
            return self.policy.sampler.sample(requests, params, seeds, self.version)
