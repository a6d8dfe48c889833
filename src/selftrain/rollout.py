"""Ask the sampler for `num_votes` completions of each prompt; read and count their answers."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.answers import read
from selftrain.answers.freeform import Reader
from selftrain.policies.base import Sampler, SampleRequest, SamplingParams
from selftrain.seeds import Stream
from selftrain.types import Finish, Group, Prompt, VotedGroup
from selftrain.vote import count


def rollout(sampler: Sampler, prompts: Sequence[Prompt], step: int, num_votes: int, how: tuple[SamplingParams, Stream]) -> list[Group]:
    """P groups of N completions, in the order of the prompts."""
    params, seeds = how
    requests = [SampleRequest(prompt, num_votes, step, index) for index, prompt in enumerate(prompts)]
    return sampler.sample(requests, params, seeds.at(stream="sample"))


def read_and_count(group: Group, reader: Reader = read) -> VotedGroup:
    """The group with its answers and vote. A truncated completion has no answer: it was cut off before it was done."""
    answers = reader([completion.text if completion.finish is Finish.STOP else "" for completion in group.completions])
    return VotedGroup(group, answers, count(answers.keys))
