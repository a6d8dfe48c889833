"""Fixed decisions for benchmarks/speed.py: every group is decided and trains, whatever was sampled."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels import Bounds
from selftrain.types import AnswerKey, Label, Outcome, VotedGroup


def labels(voted: Sequence[VotedGroup], _bounds: Bounds) -> list[Label]:
    """Decided for every group, in favour of its most frequent answer or of none."""
    chosen = [one.vote.winners[0] if one.vote.counts else AnswerKey("none") for one in voted]
    return [Label(Outcome.DECIDED, (key,) * one.vote.num_votes, "fixed", "benchmark") for one, key in zip(voted, chosen, strict=True)]


def reward(_voted: VotedGroup, _label: Label, index: int) -> float:
    """1, 0, 1, 0, ... where something was read."""
    return float(index % 2)


def advantages(rewards: Sequence[float]) -> tuple[float, ...]:
    """Both signs, whatever the rewards."""
    return tuple(1.0 if at % 2 else -1.0 for at in range(len(rewards)))
