"""Majority vote of the current policy: y* = argmax_y sum_i 1[answer(y_i) = y] over the readable answers (SRT, arXiv 2505.21444)."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels.rules import Bounds, outcome_of
from selftrain.types import Label, Outcome, VotedGroup


def majority(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
    """One label per group: its winner for all N completions, or the reason why there is none."""
    labels = []
    for one in voted:
        outcome = outcome_of(one.vote, bounds)
        key = one.vote.winners[0] if outcome is Outcome.DECIDED else None
        labels.append(Label(outcome, (key,) * one.vote.num_votes, "majority", f"vote {one.group.completions[0].version}"))
    return labels
