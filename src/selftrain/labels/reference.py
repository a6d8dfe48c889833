"""Reference answers: the label is the true answer somebody gave. Not label-free: every group says so in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from selftrain.answers import key
from selftrain.labels.rules import Bounds
from selftrain.types import AnswerSheet, Label, Outcome, PromptSet, VotedGroup


class Reference:
    """Labels from an answer sheet; a prompt without an answer stays undecided (`no_reference`). The bounds of votes do not apply."""

    def __init__(self, sheet: AnswerSheet) -> None:
        self._sheet = sheet

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG002
        return [self.label_one(one) for one in voted]

    def label_one(self, one: VotedGroup) -> Label:
        answer = self._sheet.answer_of(one.group.prompt.id)
        if answer is None:
            return Label(Outcome.NO_REFERENCE, (None,) * one.vote.num_votes, "reference", "reference")
        return Label(Outcome.DECIDED, (key(answer),) * one.vote.num_votes, "reference", "reference", uses_truth=True)


def answers_hash(prompts: PromptSet) -> str:
    """SHA-256 over ids and true answers of a prompt set in order: in the header of a run that these answers reach, and of no other (design law 1)."""
    rows = [[prompt.id, prompts.sheet.answer_of(prompt.id)] for prompt in prompts]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
