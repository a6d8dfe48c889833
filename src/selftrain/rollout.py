"""Ask the sampler for `num_votes` completions of each prompt; read and count their answers."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.answers import read
from selftrain.answers.freeform import Reader
from selftrain.policies.base import Sampler, SampleRequest, SamplingParams
from selftrain.seeds import Stream
from selftrain.types import Finish, Group, Prompt, VotedGroup
from selftrain.vote import count


def rollout(
    sampler: Sampler, prompts: Sequence[Prompt], step: int, num_votes: int, how: tuple[SamplingParams, Stream], beside: Sequence[SampleRequest] = ()
) -> tuple[list[Group], list[Group]]:
    """P groups of N completions, in the order of the prompts; and those of the requests `beside` them, which are drawn in the same call."""
    params, seeds = how
    requests = [SampleRequest(prompt, num_votes, step, index) for index, prompt in enumerate(prompts)]
    groups = sampler.sample([*requests, *beside], params, seeds.at(stream="sample"))
    return groups[: len(requests)], groups[len(requests) :]


def readable_texts(group: Group) -> list[str]:
    """The texts of the completions, empty for a truncated one: it was cut off before it was done, so it has no answer."""
    return [completion.text if completion.finish is Finish.STOP else "" for completion in group.completions]


def read_and_count(group: Group, reader: Reader = read) -> VotedGroup:
    """The group with its answers and vote."""
    answers = reader(readable_texts(group))
    return VotedGroup(group, answers, count(answers.keys))
