"""Split vote: the even half of a group labels the odd half and the other way round.

A completion then never votes on its own reward, which makes the leave-one-out baseline unbiased (method: a majority label depends on the sample
it rewards). Completions of a group are exchangeable, so even and odd positions are a fair split.
"""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels.rules import Bounds, outcome_of
from selftrain.types import AnswerKey, Label, Outcome, Vote, VotedGroup
from selftrain.vote import count


def split_vote(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
    """One label per group; decided when both halves decide, otherwise undecided with the reason of the first half that does not."""
    return [split_one(one, bounds) for one in voted]


def split_one(one: VotedGroup, bounds: Bounds) -> Label:
    halves: tuple[Vote, Vote] = (count(one.answers.keys[0::2]), count(one.answers.keys[1::2]))
    outcomes = [outcome_of(half, bounds) for half in halves]
    outcome = next((found for found in outcomes if found is not Outcome.DECIDED), Outcome.DECIDED)
    targets: tuple[AnswerKey | None, ...] = (None,) * one.vote.num_votes
    if outcome is Outcome.DECIDED:
        targets = tuple(halves[1 - index % 2].winners[0] for index in range(one.vote.num_votes))
    return Label(outcome, targets, "split_vote", f"other half {one.group.completions[0].version}")
