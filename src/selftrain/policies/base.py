"""What the loop asks of a policy: to sample, to score, to learn, to save. Sizes: see types.py for the shape letters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from selftrain.objective import Objective
from selftrain.seeds import Stream
from selftrain.types import Group, PolicyVersion, Prompt, Role, TrainingSample


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How completions are drawn.

    max_new_tokens: T at most, end token included, >= 1. temperature: > 0; 0 means greedy (for what is not trained on).
    top_p in (0, 1], top_k >= 1 or None, min_p in [0, 1): truncations of the distribution; what is trained on never uses them (method: the objective's
    log-probabilities must be those of the distribution sampled from), evaluation may.
    stop: texts that end a completion; the stop text stays in it.
    certainties: whether completions carry theirs; only of a distribution that is neither greedy nor truncated, in which no token has probability 0.
    """

    max_new_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int | None = None
    min_p: float = 0.0
    stop: tuple[str, ...] = ()
    certainties: bool = False


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """Ask for `count` completions of one prompt. `index` is the group's position in its step. seeds: what they are drawn from where it is not the call's."""

    prompt: Prompt
    count: int
    step: int
    index: int
    seeds: Stream | None = None


@dataclass(frozen=True, slots=True)
class ExtraRequest:
    """What a stage asks the loop to sample beyond the votes: `count` completions of a prompt, for the vote group with index `serves`.

    prompt: its id names the random stream, with role and step, so it is the only one of its role in the step.
    policy: who answers; `current`, the policy being trained, `base`, its frozen start, or `ema`, the moving average of its weights.
    params: None means as the votes are drawn.
    """

    serves: int
    role: Role
    prompt: Prompt
    count: int
    policy: Literal["current", "base", "ema"] = "current"
    params: SamplingParams | None = None


@dataclass(frozen=True, slots=True)
class UpdateStats:
    """What one optimizer step saw, summed over the samples it learned from.

    loss: the value of the objective. grad_norm: before clipping. learning_rate: the one applied.
    ratio_mean, ratio_max: importance ratios against the sampling log-probabilities. clip_frac: share of tokens without gradient because of clipping.
    logprob_gap_nats: mean absolute difference between the learner's log-probabilities and the sampler's; about 0 when on-policy.
    kl_loss_nats: mean per token of the KL estimate in the loss, 0 without. num_tokens: tokens that gave gradient.
    """

    loss: float
    grad_norm: float
    learning_rate: float
    ratio_mean: float
    ratio_max: float
    clip_frac: float
    logprob_gap_nats: float
    kl_loss_nats: float
    num_tokens: int


@runtime_checkable
class Sampler(Protocol):
    """Draws completions."""

    @property
    def version(self) -> PolicyVersion: ...

    def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
        """One group per request, in order. Completion i of a prompt draws from
        `seeds.at(step=request.step, prompt_id=request.prompt.id, index=i)`, the request's own seeds where it has some; their stream is already named by the
        caller.

        Raises PromptError when a prompt is longer than the policy can take.
        """
        ...


@runtime_checkable
class Learner(Protocol):
    """Learns from tokens, masks and numbers; never sees a text or an answer."""

    @property
    def version(self) -> PolicyVersion: ...

    def reference_logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        """Log-probabilities in nats under the frozen start, per group, completion and token ([P][N][T])."""
        ...

    def logprobs(self, groups: Sequence[Group], temperature: float) -> list[list[tuple[float, ...]]]:
        """The same under the weights as they are: of completions that another policy may have drawn."""
        ...

    def update(self, samples: Sequence[TrainingSample], objective: Objective, learning_rate: float) -> UpdateStats:
        """One optimizer step on the sum of the samples' losses; the version grows by one.

        Raises UpdateError, before a weight moves, when the loss or a gradient is not finite.
        """
        ...


@runtime_checkable
class Policy(Sampler, Learner, Protocol):
    """A sampler and a learner that share weights, and how they are kept.

    `save` writes the weights (for torch: a complete Hugging Face folder that `transformers` loads) and `save_optimizer` the rest that is
    needed to go on exactly (optimizer moments, version) into the same folder; `load` takes both back. `restart` becomes the policy as it was before the first
    update, in place, bit for bit.
    """

    def too_long(self, prompts: Sequence[Prompt], max_prompt_tokens: int | None = None) -> list[tuple[str, int]]:
        """Prompts that have more tokens than that, or that leave no room for a completion, as (id, tokens)."""
        ...

    def base(self) -> Sampler:
        """The frozen start as a sampler; the version of its completions is 0:0."""
        ...

    def ema(self) -> Sampler:
        """The moving average of the weights as a sampler; the version of its completions is that of the newest weights in it.

        It is kept from the first call on, when it is the policy as it is then, and `save_optimizer` and `load` take it along.
        """
        ...

    def save(self, folder: Path) -> None: ...

    def save_optimizer(self, folder: Path) -> None: ...

    def load(self, folder: Path) -> None: ...

    def restart(self) -> None: ...

    def weights_hash(self) -> str:
        """SHA-256 over names, shapes, types and bytes of the weights, in name order."""
        ...

    def start_branch(self, branch: int) -> None:
        """After a rollback: later versions carry this branch."""
        ...
