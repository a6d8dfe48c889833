"""The keys of a group -> Vote. The result does not depend on their order, and "no answer" is never a candidate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selftrain.types import AnswerKey, Vote


def count(keys: Sequence[AnswerKey | None]) -> Vote:
    """The vote of N keys, None where a completion has no readable answer. Nothing read, or an empty group, gives no winners."""
    counts = Counter(key for key in keys if key is not None)
    return Vote(len(keys), counts.total(), tuple(sorted(counts.items(), key=lambda item: (-item[1], item[0]))))
