"""What is drawn to calibrate: the start on a part of its training prompts, labelled by the config's own source, and one update tried out and thrown away.

Nothing here reads a true answer unless the config's label source is one that does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle, islice

from selftrain.compose import Verify, make_labelling, make_reading, make_scorer, make_verification, role_readers
from selftrain.compose_order import make_strata
from selftrain.compose_wording import make_wording
from selftrain.config import ONE_ANSWER_CLUSTERINGS, RunConfig
from selftrain.errors import ConfigError
from selftrain.extras import Extras
from selftrain.labels import Labelling
from selftrain.labels.second_view import SUFFIX, Wording
from selftrain.policies.base import Policy, SampleRequest, SamplingParams
from selftrain.prompts.order import Stratum
from selftrain.reading import Reading
from selftrain.scoring import Scorer, compile_samples
from selftrain.seeds import Stream
from selftrain.train import objective_of, vote_params
from selftrain.types import Admission, AnswerKey, Group, Prompt, PromptSet, ScoredGroup, Vote, VotedGroup

Told = Callable[[int, int], None]
"""Is told (prompts done, prompts in all)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt: its votes with the config's label and advantages; the vote of its one greedy answer and that under a second wording, None without one."""

    scored: ScoredGroup
    greedy: Vote | None
    view: Vote | None

    @property
    def vote(self) -> Vote:
        return self.scored.voted.vote

    @property
    def keys(self) -> tuple[AnswerKey | None, ...]:
        return self.scored.voted.answers.keys

    @property
    def winner(self) -> AnswerKey | None:
        """The single winner of the vote; None in a tie and where nothing was read."""
        return self.vote.winners[0] if len(self.vote.winners) == 1 else None

    @property
    def trains(self) -> bool:
        return self.scored.admission is Admission.ADMITTED


@dataclass(frozen=True, slots=True)
class Sampled:
    """probes: in the order of the prompts. drift_nats: mean |change of a token's log-probability| by one update; None where no group would train."""

    probes: tuple[Probe, ...]
    drift_nats: float | None


def sample(config: RunConfig, prompts: PromptSet, policy: Policy, count: int, told: Told) -> Sampled:
    """Draw as many prompts a call as a step of the run has; the first such call is the one whose update is tried.

    policy: the start, made with `trial_config`; it is another model afterwards.
    """
    drawer = Drawer.of(config, prompts, policy)
    picked = in_shares(make_strata(config, prompts), count, drawer.seeds)
    size = config.rollout.prompts_per_step
    probes: list[Probe] = []
    for step, first in enumerate(range(0, len(picked), size)):
        probes += drawer.step(picked[first : first + size], step)
        told(len(probes), len(picked))
    return Sampled(tuple(probes), drift(config, policy, [one.scored for one in probes[:size]]))


def in_shares(strata: Sequence[Stratum], count: int, seeds: Stream) -> tuple[Prompt, ...]:
    """`count` different prompts, or as many as there are until a stratum has no more: of each as many as a step takes, steps one after the other.

    Within a step the strata are interleaved, so that any first part of it holds them about as the whole does.
    """
    if len(strata) == 1:
        return chosen(strata[0].prompts, count, seeds)
    left = [iter(by_hash(one.prompts, seeds)) for one in strata]
    order = [which for _, which in sorted(((at + 0.5) / one.per_step, which) for which, one in enumerate(strata) for at in range(one.per_step))]
    found: list[Prompt] = []
    for which in islice(cycle(order), count):
        prompt = next(left[which], None)
        if prompt is None:
            break
        found.append(prompt)
    return tuple(found)


def by_hash(prompts: Sequence[Prompt], seeds: Stream) -> list[Prompt]:
    return sorted(prompts, key=lambda prompt: seeds.at(stream="calibrate", prompt_id=prompt.id).fraction())


def chosen(prompts: Sequence[Prompt], count: int, seeds: Stream) -> tuple[Prompt, ...]:
    """`count` of the prompts, or all, picked by a stable hash of seed and id, in the order of the set."""
    kept = {prompt.id for prompt in by_hash(prompts, seeds)[:count]}
    return tuple(prompt for prompt in prompts if prompt.id in kept)


def trial_config(config: RunConfig) -> RunConfig:
    """The config whose policy takes the samples of the trial twice: to move, then to see how far it moved."""
    update = config.update.model_copy(update={"num_epochs": 2, "num_minibatches": 1})
    return config.model_copy(update={"update": update})


def drift(config: RunConfig, policy: Policy, scored: Sequence[ScoredGroup]) -> float | None:
    """How far one update at the peak learning rate moves the policy on the completions it learned from, in nats a token. It moves the policy.

    The second update has rate 0: it tells the distance of the learner's log-probabilities from the sampler's. KL terms are left out, at the start they are 0.
    """
    admitted = [one for one in scored if one.admission is Admission.ADMITTED]
    samples = compile_samples(admitted, {}, config.objective.length_norm, config.rollout.max_new_tokens, config.objective.mask_answer)
    if not samples:
        return None
    objective = replace(objective_of(config), kl_coef=0.0)
    policy.update(samples, objective, config.update.learning_rate)
    return policy.update(samples, objective, 0.0).logprob_gap_nats


@dataclass(frozen=True, slots=True)
class Drawer:
    """The stages of a step up to the advantages, as in training, but for a second turn. wording: None where only the policy could reword a prompt."""

    config: RunConfig
    policy: Policy
    read: Reading
    verify: Verify
    labelling: Labelling
    scorer: Scorer
    wording: Wording | None
    seeds: Stream

    @classmethod
    def of(cls, config: RunConfig, prompts: PromptSet, policy: Policy) -> Drawer:
        return cls(
            config=config,
            policy=policy,
            read=make_reading(config, prompts.questions),
            verify=make_verification(config, prompts),
            labelling=make_labelling(config, prompts),
            scorer=make_scorer(config),
            wording=wording_of(config, prompts),
            seeds=Stream(config.run.seed),
        )

    def step(self, prompts: Sequence[Prompt], step: int) -> list[Probe]:
        """Votes, labels, greedy answers and votes under the second wording, of some prompts."""
        params = vote_params(self.config)
        extras = Extras(self.policy, params, role_readers(self.read), self.seeds)
        groups = self._drawn([(at, prompt) for at, prompt in enumerate(prompts)], step, params, "calibrate")
        voted = [self.read(group) for group in extras.sampled(groups, self.read.requests)]
        served = self.verify(extras.sampled(voted, self.labelling.requests))
        at_start = {one.group.index: tuple(done.logprobs for done in one.group.completions) for one in served}
        scored = self.scorer.score(served, self.labelling(served), at_start, self.seeds)
        greedy, views = self._greedy(prompts, step), self._views(prompts, step)
        return [Probe(one, greedy.get(at), views.get(at)) for at, one in enumerate(scored)]

    def _greedy(self, prompts: Sequence[Prompt], step: int) -> dict[int, Vote]:
        if self.config.labels.clustering not in ONE_ANSWER_CLUSTERINGS:
            return {}
        params = replace(vote_params(self.config), temperature=0.0, certainties=False)
        return self._votes(self._drawn([(at, prompt) for at, prompt in enumerate(prompts)], step, params, "calibrate greedy", 1))

    def _views(self, prompts: Sequence[Prompt], step: int) -> dict[int, Vote]:
        if self.wording is None or self.config.labels.clustering not in ONE_ANSWER_CLUSTERINGS:
            return {}
        seconds = [(at, prompt.id, self.wording.second(prompt, None)) for at, prompt in enumerate(prompts)]
        worded = [(at, Prompt(prompt_id + SUFFIX, messages)) for at, prompt_id, messages in seconds if messages is not None]
        return self._votes(self._drawn(worded, step, replace(vote_params(self.config), certainties=False), "calibrate view"))

    def _votes(self, groups: Sequence[Group]) -> dict[int, Vote]:
        read: list[VotedGroup] = [self.read(group) for group in groups]
        return {one.group.index: one.vote for one in read}

    def _drawn(self, prompts: Sequence[tuple[int, Prompt]], step: int, params: SamplingParams, stream: str, count: int | None = None) -> list[Group]:
        """count: completions of each; None: as many as vote."""
        requests = [SampleRequest(prompt, count or self.config.rollout.num_votes, step, at) for at, prompt in prompts]
        return self.policy.sample(requests, params, self.seeds.at(stream=stream)) if requests else []


def wording_of(config: RunConfig, prompts: PromptSet) -> Wording | None:
    """The second wordings that cost no question to the policy: the task's own, or a second template; None where there are none."""
    if config.second_view.wording == "paraphrase":
        return None
    try:
        return make_wording(config, prompts)
    except ConfigError:
        if config.second_view.wording == "template":
            raise
        return None  # the prompts are no task's that words them anew, which the page says
