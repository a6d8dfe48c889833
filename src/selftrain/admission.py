"""Which groups may train; every refusal has a reason."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.seeds import Stream
from selftrain.types import Admission, Label


def admit(label: Label, shaped_rewards: Sequence[float]) -> Admission:
    """Undecided groups have no rewards; groups with equal rewards have no advantage, unless their label has an offset; a weight of 0 leaves none either."""
    if not label.is_decided:
        return Admission.UNDECIDED
    if label.weight == 0 or (min(shaped_rewards) == max(shaped_rewards) and label.offset == 0):
        return Admission.NO_SIGNAL
    return Admission.ADMITTED


def trained_subset(num_votes: int, group_size: int, seeds: Stream) -> tuple[int, ...]:
    """Which G of the N completions are trained on: all, or a draw without replacement from the group's own stream. Sorted."""
    if group_size >= num_votes:
        return tuple(range(num_votes))
    drawn = seeds.at(stream="subset").generator().choice(num_votes, size=group_size, replace=False)
    return tuple(sorted(int(index) for index in drawn))
