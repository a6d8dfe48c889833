"""Label sources: the vote of a group, or something that knows better, -> the pseudo-label with its provenance.

A source is a function `(voted groups of a step, Bounds) -> labels`, chosen by name. One that needs more than the votes also has a method
`requests(voted groups, Bounds) -> ExtraRequests`, which is called first and again until it asks for nothing; what was drawn is in `group.extras`.
One of ours that remembers earlier steps has `state()` and `load()`. Beyond that they are pure.
Sources that are bound to something (a section of the config, a random stream, the answer sheet) are made in `compose_labels.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from selftrain.labels.confidence import self_certainty, token_entropy
from selftrain.labels.controls import format_only, inverted
from selftrain.labels.ema import Ema
from selftrain.labels.frozen import Frozen
from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.labels.source import Labelling, LabelSource, Requests
from selftrain.labels.split_vote import split_vote

LABEL_SOURCES: Mapping[str, LabelSource] = {
    "majority": majority,
    "split_vote": split_vote,
    "frozen": Frozen(),
    "ema": Ema(),
    "token_entropy": token_entropy,
    "self_certainty": self_certainty,
    "format_only": format_only,
    "inverted": inverted,
}

__all__ = ["LABEL_SOURCES", "Bounds", "LabelSource", "Labelling", "Requests"]
