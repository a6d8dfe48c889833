"""Majority vote of the current policy: y* = argmax_y sum_i 1[answer(y_i) = y] over the readable answers (SRT, arXiv 2505.21444)."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.labels.rules import Bounds, winner_label
from selftrain.types import Label, VotedGroup


def majority(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
    """One label per group: its winner for all N completions, or the reason why there is none."""
    return [winner_label(one.vote, one.vote.num_votes, bounds, "majority", f"vote {one.group.completions[0].version}") for one in voted]
