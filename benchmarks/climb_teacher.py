"""A label source for the second rung of a climb: the vote of the supervised start, stored before the run.

`labels.source = frozen` asks the start of the run, which on the second rung has been trained on the first. A fixed base teacher is the supervised start on
both rungs. The file that CLIMB_TEACHER names holds the answer keys of its N completions of each training prompt, by prompt id.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from selftrain.config import RunConfig
from selftrain.labels import Bounds
from selftrain.labels.rules import winner_label
from selftrain.policies.base import Sampler, SamplingParams
from selftrain.rollout import read_and_count, rollout
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Label, PromptSet, VotedGroup
from selftrain.vote import count

PROMPTS_PER_CALL = 64


def base_vote(groups: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
    """The stored vote's winner for each group, or the reason why it has none."""
    keys = stored(os.environ["CLIMB_TEACHER"])
    return [winner_label(count(keys[one.group.prompt.id]), one.vote.num_votes, bounds, "base_vote", "stored vote of the supervised start") for one in groups]


@cache
def stored(path: str) -> dict[str, tuple[AnswerKey | None, ...]]:
    found = json.loads(Path(path).read_text("utf-8"))
    return {prompt_id: tuple(None if key is None else AnswerKey(key) for key in keys) for prompt_id, keys in found.items()}


def store(sampler: Sampler, prompts: PromptSet, config: RunConfig, path: Path) -> None:
    """Draws the votes as a run would, from a stream of their own, and writes the file."""
    params = SamplingParams(config.rollout.max_new_tokens, config.rollout.temperature, stop=config.rollout.stop)
    seeds = Stream(config.run.seed).at(stream="climb-teacher")
    keys: dict[str, tuple[AnswerKey | None, ...]] = {}
    for first in range(0, len(prompts), PROMPTS_PER_CALL):
        batch = prompts.prompts[first : first + PROMPTS_PER_CALL]
        for group in rollout(sampler, batch, 0, config.rollout.num_votes, (params, seeds)):
            keys[group.prompt.id] = read_and_count(group).answers.keys
    part = path.with_suffix(".part")
    part.write_text(json.dumps(keys), "utf-8")
    part.replace(path)
