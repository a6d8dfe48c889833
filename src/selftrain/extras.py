"""Samples beyond the votes: a stage says what it needs, the loop draws it, until the stage asks for nothing more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from selftrain.errors import ConfigError
from selftrain.policies.base import ExtraRequest, Policy, Sampler, SampleRequest, SamplingParams
from selftrain.seeds import Stream
from selftrain.types import Group, Role, VotedGroup

MAX_ROUNDS = 64
"""A stage that still asks after so many rounds would ask for ever."""

RoleReader = Callable[[Group], VotedGroup]
Served = TypeVar("Served", Group, VotedGroup)


@dataclass(frozen=True, slots=True)
class Extras:
    """How extra samples are drawn and read. params: of requests that name none. readers: by role, how a group is read and counted."""

    policy: Policy
    params: SamplingParams
    readers: Mapping[Role, RoleReader]
    seeds: Stream

    def sampled(self, served: Sequence[Served], requests: Callable[[Sequence[Served]], Sequence[ExtraRequest]]) -> list[Served]:
        """The groups of a step with what a stage asks for among their extras. Raises ConfigError for a stage that never ends or repeats itself."""
        for _ in range(MAX_ROUNDS):
            wanted = requests(served)
            if not wanted:
                return list(served)
            check_new(served, wanted)
            served = with_extras(served, wanted, self._draw(served, wanted))
        raise ConfigError("the label source or clustering", f"it asks for more samples after {MAX_ROUNDS} rounds", "Let it ask for nothing when it has enough.")

    def _draw(self, served: Sequence[Served], wanted: Sequence[ExtraRequest]) -> list[VotedGroup]:
        """One read group per request, in their order; without a completion where the prompt leaves no room for one."""
        step, first = group_of(served[0]).step, next_index(served)
        too_long = {prompt_id for prompt_id, _ in self.policy.too_long([one.prompt for one in wanted])}
        groups: dict[int, Group] = {}
        calls: dict[tuple[Role, str, SamplingParams], list[SampleRequest]] = {}
        for index, one in enumerate(wanted, first):
            if one.prompt.id in too_long:
                groups[index] = Group(step, index, one.prompt, (), ())
            else:
                calls.setdefault((one.role, one.policy, one.params or self.params), []).append(SampleRequest(one.prompt, one.count, step, index))
        for (role, policy, params), requests in calls.items():
            sampler: Sampler = {"current": lambda: self.policy, "base": self.policy.base, "ema": self.policy.ema}[policy]()
            groups.update((group.index, group) for group in sampler.sample(requests, params, self.seeds.at(stream=role.value)))
        return [self.readers[one.role](replace(groups[index], role=one.role)) for index, one in enumerate(wanted, first)]


def next_index(served: Sequence[Group | VotedGroup]) -> int:
    """The first group index of a step that is free: behind those that vote and their extras."""
    return len(served) + sum(len(group_of(one).extras) for one in served)


def group_of(one: Group | VotedGroup) -> Group:
    return one if isinstance(one, Group) else one.group


def check_new(served: Sequence[Group | VotedGroup], wanted: Sequence[ExtraRequest]) -> None:
    """Raises ConfigError when two requests of a step would draw from one random stream, or serve a group that is not there."""
    old = [(extra.group.role, extra.group.prompt.id) for one in served for extra in group_of(one).extras]
    (address, count), *_ = Counter([*old, *((one.role, one.prompt.id) for one in wanted)]).most_common(1)
    if count > 1:
        given = f"{count} requests with role {address[0].value} and prompt id {address[1]} in a step"
        raise ConfigError(given, "they would draw the same random numbers", "Give each its own prompt id.")
    strange = [one.serves for one in wanted if not 0 <= one.serves < len(served)]
    if strange:
        raise ConfigError(f"a request that serves group {strange[0]}", f"the step has groups 0 to {len(served) - 1}", "Give the index of a vote group.")


def with_extras(served: Sequence[Served], wanted: Sequence[ExtraRequest], drawn: Sequence[VotedGroup]) -> list[Served]:
    """The groups with what was drawn for them behind their other extras."""
    found = []
    for index, one in enumerate(served):
        new = tuple(extra for request, extra in zip(wanted, drawn, strict=True) if request.serves == index)
        group = replace(group_of(one), extras=group_of(one).extras + new)
        found.append(group if isinstance(one, Group) else replace(one, group=group))
    return found
