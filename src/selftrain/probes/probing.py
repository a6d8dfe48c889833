"""Asks a policy the prompts of a probe set and says what came of it, against the frozen start that was asked once.

Every probe of a run draws from the same random numbers, whatever the step: what differs between two probes is due to the weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from selftrain.policies.base import Policy, Sampler, SampleRequest, SamplingParams
from selftrain.probes.probe_set import Kind, Probe, ProbeSet
from selftrain.probes.signals import MIN_PAIRS, answer_signals, drift_signals, easy, kl_signals, of_kind
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Completion, Finish, Group, PolicyVersion, Prompt, Role, Vote, VotedGroup

BASE_VOTES = 4
"""times as many completions of each held-aside prompt are drawn from the start as from the policy later: they are drawn once, and say what is easy"""
CHANGED_FRAC = 1 / 3
"""of the easy prompts that are asked, the surest ones, which are also asked with something changed"""
OFF_DOMAIN_TOKENS = 64
CHANGED = (Kind.NUMBER, Kind.REWORD, Kind.SWAP, Kind.CANARY)


@dataclass(frozen=True, slots=True)
class Drawing:
    """How probes are drawn. params: as the training completions. num_votes: completions of a held-aside prompt as it is, >= 2. seeds: of the run.

    read: a group's answers.
    """

    params: SamplingParams
    num_votes: int
    seeds: Stream
    read: Callable[[Group], VotedGroup] = read_and_count

    def count(self, kind: Kind) -> int:
        """Completions of a prompt: of the changed ones half as many, since each is compared with all of its partner's; at least 2, so that they can agree."""
        if kind is Kind.OFF_DOMAIN:
            return 1
        return BASE_VOTES * self.num_votes if kind is Kind.BASE else max(2, self.num_votes // 2) if kind in CHANGED else self.num_votes


@dataclass(frozen=True, slots=True)
class Base:
    """What the frozen start said. votes: by held-aside prompt. off_domain: its completions of off-domain texts, with their log-probabilities.

    Example of its state: `{"votes": {"add-4/5f": [16, 15, [["132", 15]]]}, "off_domain": [{"prompt_ids": [7], "token_ids": [3], "logprobs": [-0.1]}]}`.
    """

    votes: Mapping[str, Vote]
    off_domain: tuple[Group, ...]

    def state(self) -> dict[str, Any]:
        """As JSON, for a checkpoint: what later probes need."""
        votes = {of: [vote.num_votes, vote.num_read, [list(count) for count in vote.counts]] for of, vote in self.votes.items()}
        return {
            "votes": votes,
            "off_domain": [
                {"prompt_ids": list(group.prompt_ids), "token_ids": list(done.token_ids), "logprobs": list(done.logprobs)}
                for group in self.off_domain
                for done in group.completions
            ],
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Base:
        votes = {of: Vote(votes, read, tuple((AnswerKey(found), count) for found, count in counts)) for of, (votes, read, counts) in state["votes"].items()}
        return cls(votes, tuple(_recalled(number, one) for number, one in enumerate(state["off_domain"])))


def _recalled(number: int, one: Mapping[str, Any]) -> Group:
    """The tokens of an off-domain completion as a group: nothing else of it is needed."""
    tokens = tuple(one["token_ids"])
    done = Completion("", tokens, tuple(one["logprobs"]), (0,) * len(tokens), (), Finish.STOP, PolicyVersion(0, 0))
    return Group(0, number, Prompt(f"{Kind.OFF_DOMAIN.value}:{number:02d}", ()), tuple(one["prompt_ids"]), (done,), Role.PROBE)


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came of a probe. groups: as they are recorded, with role `probe`. values: the signals, by metric key; those that cannot be known are missing."""

    groups: tuple[VotedGroup, ...]
    values: Mapping[str, float]


def ask_base(start: Sampler, probe_set: ProbeSet, how: Drawing, step: int = 0, first_index: int = 0) -> tuple[VotedGroup, ...]:
    """The start's answers to the held-aside prompts, and how it goes on after the off-domain texts: the groups that `base_of` is made of."""
    votes = _asked(start, list(probe_set.of_kind(Kind.BASE)), how, step, first_index)
    params = replace(how.params, max_new_tokens=min(OFF_DOMAIN_TOKENS, how.params.max_new_tokens))
    texts = _asked(start, list(probe_set.of_kind(Kind.OFF_DOMAIN)), replace(how, params=params), step, first_index + len(votes))
    return (*votes, *texts)


def base_of(groups: Sequence[VotedGroup]) -> Base:
    """What is kept of the start's answers."""
    votes = {of: one.vote for of, one in of_kind(groups, Kind.BASE).items()}
    return Base(votes, tuple(one.group for one in of_kind(groups, Kind.OFF_DOMAIN).values()))


def probe(policy: Policy, base: Base, probe_set: ProbeSet, how: Drawing, step: int = 0, first_index: int = 0) -> ProbeResult:
    """Ask the policy as it is. step, first_index: where its groups stand in the record; they change nothing else.

    Of the held-aside prompts those are asked that were easy for the start: there a vote that is lost means most, and others would cost as much.
    The start's log-probabilities come from `policy.reference_logprobs`, which for a torch policy without LoRA keeps a second copy of the weights.
    """
    groups = _asked(policy, asked_of(base, probe_set), how, step, first_index)
    own = [first_half(one.group) for one in of_kind(groups, Kind.OWN).values()]
    values = answer_signals(groups, base.votes, probe_set.canaries)
    values |= kl_signals(own, policy.reference_logprobs(own, how.params.temperature) if own else [])
    values |= drift_signals(base.off_domain, policy.logprobs(base.off_domain, how.params.temperature) if base.off_domain else [])
    return ProbeResult(groups, values)


def asked_of(base: Base, probe_set: ProbeSet) -> list[Probe]:
    """What is asked at every probe: the easy prompts, the surest of them with something changed, and canaries. All where too few are easy to tell anything."""
    surest = list(easy(base.votes))
    if len(surest) < MIN_PAIRS:
        return list(probe_set.of_kind(Kind.OWN, *CHANGED))
    changed = set(surest[: max(MIN_PAIRS, math.ceil(CHANGED_FRAC * len(surest)))])
    chosen = {Kind.OWN: set(surest), Kind.NUMBER: changed, Kind.REWORD: changed, Kind.SWAP: changed}
    return [one for one in probe_set.of_kind(Kind.OWN, *CHANGED) if one.kind is Kind.CANARY or one.of in chosen[one.kind]]


def first_half(group: Group) -> Group:
    """The group with the first half of its completions: enough tokens for KL, for half of the start's time."""
    return replace(group, completions=group.completions[: -(-len(group.completions) // 2)])


NOTHING = ProbeResult((), {})


class Prober:
    """The stage of the loop: asks the start before the first step and the policy at every `every_steps`-th step, the first one among them.

    It remembers what the start said, over rollbacks too.
    """

    def __init__(self, probe_set: ProbeSet, how: Drawing, every_steps: int) -> None:
        self._probe_set, self._how, self._every_steps = probe_set, how, every_steps
        self._base: Base | None = None

    def __call__(self, policy: Policy, step: int, first_index: int) -> ProbeResult:
        """What is recorded of this step; nothing when no probe is due. first_index: the first group index of the step that is free."""
        if not self._probe_set.probes or step % self._every_steps:
            return NOTHING
        asked: tuple[VotedGroup, ...] = ()
        if self._base is None:
            asked = ask_base(policy if not policy.version.updates else policy.base(), self._probe_set, self._how, step, first_index)
            self._base = base_of(asked)
        found = probe(policy, self._base, self._probe_set, self._how, step, first_index + len(asked))
        groups = (*asked, *found.groups)
        return ProbeResult(groups, {**found.values, "cost/probe_tokens": probe_tokens(groups)})

    def state(self) -> dict[str, Any]:
        """For a checkpoint; empty before the first probe."""
        return {} if self._base is None else self._base.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """What the start said, which no checkpoint changes; one from before there were probes says nothing."""
        self._base = Base.from_state(state) if state else self._base


def probe_tokens(groups: Sequence[VotedGroup]) -> float:
    """Tokens sampled for a probe."""
    return float(sum(len(done.token_ids) for one in groups for done in one.group.completions))


def _asked(sampler: Sampler, probes: Sequence[Probe], how: Drawing, step: int, first: int) -> tuple[VotedGroup, ...]:
    """All in one call, at step 0 of the stream `probe`, then put in their place."""
    requests = [SampleRequest(one.prompt, how.count(one.kind), 0, first + number) for number, one in enumerate(probes)]
    groups = sampler.sample(requests, how.params, how.seeds.at(branch=0, stream="probe")) if requests else []
    return tuple(how.read(replace(group, step=step, role=Role.PROBE)) for group in groups)
