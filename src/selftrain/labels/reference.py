"""Reference answers: the label is the true answer somebody gave. Not label-free: every group says so in the ledger."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence

from selftrain.answers import key
from selftrain.labels.rules import Bounds
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Label, Outcome, PromptSet, VotedGroup

ANY_SEED = Stream(0)
"""with frac = 1 the seed decides nothing"""


class Reference:
    """Labels from an answer sheet; a prompt without an answer stays undecided (`no_reference`). The bounds of votes do not apply.

    frac: share of the prompts whose answers it may see, chosen by a stable hash of run seed and prompt id.
    """

    def __init__(self, sheet: AnswerSheet, frac: float = 1.0, seeds: Stream = ANY_SEED) -> None:
        self._sheet, self._frac, self._seeds = sheet, frac, seeds.at(stream="reference")

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG002
        return [self.label_one(one) for one in voted]

    def label_one(self, one: VotedGroup) -> Label:
        answer = self._answer_of(one.group.prompt.id)
        if answer is None:
            return Label(Outcome.NO_REFERENCE, (None,) * one.vote.num_votes, "reference", "reference")
        return Label(Outcome.DECIDED, (key(answer),) * one.vote.num_votes, "reference", "reference", uses_truth=True)

    def has(self, prompt_id: str) -> bool:
        """Whether there is a true answer to this prompt that it may see."""
        return self._answer_of(prompt_id) is not None

    def _answer_of(self, prompt_id: str) -> str | None:
        return self._sheet.answer_of(prompt_id) if self._seeds.at(prompt_id=prompt_id).fraction() < self._frac else None


def answers_hash(prompts: PromptSet) -> str:
    """SHA-256 over ids and true answers of a prompt set in order: in the header of a run that these answers reach, and of no other (design law 1)."""
    rows = [[prompt.id, prompts.sheet.answer_of(prompt.id)] for prompt in prompts]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
