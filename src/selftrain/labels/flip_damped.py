"""Flip-damped vote: the majority, weighing less the more often this prompt's label changed (TTRL-Guard, arXiv 2605.19444).

    weight = 1 - f / (v - 1) for v decided visits to the prompt, this one included, and f of them with another label than the visit before; 1 for v = 1

The counts are memory: they stand in every checkpoint, and a rollback goes back to those of its checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.types import AnswerKey, Label, VotedGroup


class FlipDamped:
    """A label source that remembers, by prompt id, the last label, the decided visits and the flips."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[AnswerKey, int, int]] = {}

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """Call it once for each step, in order. An undecided visit counts for nothing."""
        return [
            replace(label, source="flip_damped", weight=self._weight(one.group.prompt.id, label))
            for one, label in zip(voted, majority(voted, bounds), strict=True)
        ]

    def _weight(self, prompt_id: str, label: Label) -> float:
        if label.key is None:
            return 1.0
        last, visits, flips = self._seen.get(prompt_id, (label.key, 0, 0))
        visits, flips = visits + 1, flips + (label.key != last)
        self._seen[prompt_id] = (label.key, visits, flips)
        return 1.0 if visits == 1 else 1 - flips / (visits - 1)

    def state(self) -> dict[str, Any]:
        return {"seen": {prompt_id: list(known) for prompt_id, known in self._seen.items()}}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `state` gave; an empty state forgets everything."""
        self._seen = {prompt_id: (AnswerKey(key), int(visits), int(flips)) for prompt_id, (key, visits, flips) in state.get("seen", {}).items()}
