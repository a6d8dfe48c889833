"""Label sources: the vote of a group, or something that knows better, -> the pseudo-label with its provenance.

A source is a function `(voted groups of a step, Bounds) -> labels`, chosen by name. `reference` also needs the answer sheet, which only the
composition root may bind to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.labels.split_vote import split_vote
from selftrain.types import Label, VotedGroup

LabelSource = Callable[[Sequence[VotedGroup], Bounds], list[Label]]

LABEL_SOURCES: Mapping[str, LabelSource] = {"majority": majority, "split_vote": split_vote}

__all__ = ["LABEL_SOURCES", "Bounds", "LabelSource"]
