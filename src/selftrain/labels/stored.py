"""Stored labels: the votes of a model on the prompts, written to a file before the run (labels fixed offline by the base: SRT, arXiv 2505.21444).

What decides is fixed, so it cannot be hacked together with the policy; its ceiling is that vote. In training it costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from selftrain.labels.rules import Bounds, winner_label
from selftrain.types import AnswerKey, Label, Outcome, Vote, VotedGroup


@dataclass(frozen=True, slots=True)
class StoredVotes:
    """Votes by prompt id. decided_by: who voted, `stored 3fa9c1d2e4b5`, the first digits of the model's hash."""

    votes: Mapping[str, Vote]
    decided_by: str

    def agree(self, one: VotedGroup, key: AnswerKey | None, min_share: float) -> bool:  # noqa: ARG002
        """A condition of `gate`: the stored vote on the same prompt has this single winner."""
        vote = self.votes.get(one.group.prompt.id)
        return vote is not None and vote.winners == (key,)


class Stored:
    """The stored winner for all N completions. The bounds of votes apply to the stored vote; a prompt without one is undecided (`not_stored`)."""

    def __init__(self, stored: StoredVotes) -> None:
        self._stored = stored

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        return [self._one(one, bounds) for one in voted]

    def _one(self, one: VotedGroup, bounds: Bounds) -> Label:
        vote, decided_by = self._stored.votes.get(one.group.prompt.id), self._stored.decided_by
        if vote is None:
            return Label(Outcome.NOT_STORED, (None,) * one.vote.num_votes, "stored", decided_by)
        return winner_label(vote, one.vote.num_votes, bounds, "stored", decided_by)
