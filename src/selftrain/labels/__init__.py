"""Label sources: the vote of a group, or something that knows better, -> the pseudo-label with its provenance.

A source is a function `(voted groups of a step, Bounds) -> labels`, chosen by name. One that needs more than the votes also has a method
`requests(voted groups, Bounds) -> ExtraRequests`, which is called first and again until it asks for nothing; what was drawn is in `group.extras`.
Both are pure.
`reference` also needs the answer sheet, which only the composition root may bind to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from selftrain.labels.ema import Ema
from selftrain.labels.frozen import Frozen
from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.labels.split_vote import split_vote
from selftrain.policies.base import ExtraRequest
from selftrain.types import Label, VotedGroup

LabelSource = Callable[[Sequence[VotedGroup], Bounds], list[Label]]
Requests = Callable[[Sequence[VotedGroup], Bounds], list[ExtraRequest]]

LABEL_SOURCES: Mapping[str, LabelSource] = {"majority": majority, "split_vote": split_vote, "frozen": Frozen(), "ema": Ema()}


@dataclass(frozen=True, slots=True)
class Labelling:
    """A label source with its bounds, in its two phases. asks: None for a source that needs the votes only."""

    source: LabelSource
    asks: Requests | None
    bounds: Bounds

    def requests(self, voted: Sequence[VotedGroup]) -> list[ExtraRequest]:
        """What the source still needs; nothing at the end."""
        return self.asks(voted, self.bounds) if self.asks else []

    def __call__(self, voted: Sequence[VotedGroup]) -> list[Label]:
        """One label per group, when nothing more is asked for."""
        return self.source(voted, self.bounds)


__all__ = ["LABEL_SOURCES", "Bounds", "LabelSource", "Labelling", "Requests"]
