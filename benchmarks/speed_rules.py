"""Fixed decisions for benchmarks/speed.py: every group is decided and trains, whatever was sampled."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels import Bounds
from selftrain.types import AnswerKey, Label, Outcome, VotedGroup


def labels(voted: Sequence[VotedGroup], _bounds: Bounds) -> list[Label]:
    """Decided for every group, in favour of its most frequent answer or of none, with rewards 0, 1, 0, 1, ... whether something was read or not."""
    made = []
    for one in voted:
        key, count = one.vote.winners[0] if one.vote.counts else AnswerKey("none"), one.vote.num_votes
        rewards = tuple(float(at % 2) for at in range(count))
        made.append(Label(Outcome.DECIDED, (key,) * count, "fixed", "benchmark", values=rewards, notes=("fixed",) * count))
    return made


def advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """Both signs, whatever the rewards."""
    return tuple(1.0 if at % 2 else -1.0 for at in range(len(rewards)))
