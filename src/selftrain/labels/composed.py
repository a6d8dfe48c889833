"""Sources made of sources: the first that decides, an average, a vote behind gates.

A part is a Labelling with its name. Extra samples that two parts ask for alike are drawn once.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from selftrain.labels.rules import Bounds
from selftrain.labels.source import Labelling
from selftrain.policies.base import ExtraRequest
from selftrain.reward import match, rewards_of
from selftrain.types import Label, Outcome, Rewards, VotedGroup


class Composed:
    """What all compositions share: requests, memory, and the labels of all parts for each group."""

    def __init__(self, parts: Mapping[str, Labelling]) -> None:
        self._parts = parts

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """What any part asks for, each request once."""
        return list(dict.fromkeys(request for part in self._parts.values() for request in part.requests(voted)))

    def labels(self, voted: Sequence[VotedGroup]) -> list[dict[str, Label]]:
        """For each group the label of every part, by name. Every part sees every group, so that what it remembers does not depend on the others."""
        columns = [part(voted) for part in self._parts.values()]
        return [dict(zip(self._parts, row, strict=True)) for row in zip(*columns, strict=True)]

    def state(self) -> dict[str, Any]:
        return {name: part.state() for name, part in self._parts.items()}

    def load(self, state: Mapping[str, Any]) -> None:
        for name, part in self._parts.items():
            part.load(state[name])


class FirstOf(Composed):
    """The label of the first part that decides, with its own provenance; of the last one where none does."""

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG002
        return [first_decided([*labels.values()]) for labels in self.labels(voted)]


def first_decided(labels: Sequence[Label]) -> Label:
    """Truth touches it also where a source before it looked at the truth and did not decide."""
    place = next((index for index, label in enumerate(labels) if label.is_decided), len(labels) - 1)
    return replace(labels[place], uses_truth=any(label.uses_truth for label in labels[: place + 1]))


class Mixture(Composed):
    """r_i = sum_k w_k r_ik over the parts k that decide, their weights made to add up to 1. weights: by name, above 0.

    Weight and offset of the label are averaged alike. A group that no part decides has the first part's reason.
    """

    def __init__(self, parts: Mapping[str, Labelling], weights: Mapping[str, float]) -> None:
        super().__init__(parts)
        self._weights = weights

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG002
        return [self._one(one, labels) for one, labels in zip(voted, self.labels(voted), strict=True)]

    def _one(self, one: VotedGroup, labels: Mapping[str, Label]) -> Label:
        decided = {name: label for name, label in labels.items() if label.is_decided}
        uses_truth = any(label.uses_truth for label in labels.values())
        if not decided:
            return replace(next(iter(labels.values())), source="mixture", uses_truth=uses_truth)
        total = math.fsum(self._weights[name] for name in decided)
        shares = {name: self._weights[name] / total for name in decided}
        rewards = {name: rewards_of(one, label, match) for name, label in decided.items()}
        keys = {label.key for label in decided.values() if label.key is not None}
        return Label(
            outcome=Outcome.DECIDED,
            targets=(keys.pop() if len(keys) == 1 else None,) * one.vote.num_votes,
            source="mixture",
            decided_by=f"mixture of {', '.join(decided)}",
            uses_truth=uses_truth,
            weight=math.fsum(shares[name] * label.weight for name, label in decided.items()),
            offset=math.fsum(shares[name] * label.offset for name, label in decided.items()),
            values=tuple(math.fsum(shares[name] * rewards[name].values[index] for name in decided) for index in range(one.vote.num_votes)),
            notes=tuple(note_of(rewards, index) for index in range(one.vote.num_votes)),
        )


def note_of(rewards: Mapping[str, Rewards], index: int) -> str:
    """The reason that all parts share, or each part's: `majority match, verifier refuted`."""
    reasons = {name: one.reasons[index] for name, one in rewards.items()}
    shared = set(reasons.values())
    return shared.pop() if len(shared) == 1 else ", ".join(f"{name} {reason}" for name, reason in reasons.items())
