"""The stage: voted groups -> the same with a check for every completion of the prompts that the verifier may see."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from selftrain.reward import unrewarded
from selftrain.seeds import Stream
from selftrain.types import Check, Message, Submission, VotedGroup, question_of
from selftrain.verifiers.pool import VerifierPool


@dataclass(frozen=True, slots=True)
class Verification:
    """frac: share of the prompts it sees, chosen by a stable hash of run seed and prompt id. questions: by prompt id, what was asked without the template.

    entries: by prompt id, what the task's own verifier needs; empty for a function of the user's. Then a completion without a readable answer is
    submitted too: what the function looks at may be the whole text.
    """

    pool: VerifierPool
    frac: float
    seeds: Stream
    questions: Mapping[str, tuple[Message, ...]]
    entries: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, repr=False)

    def __call__(self, voted: Sequence[VotedGroup]) -> list[VotedGroup]:
        """Equal submissions of a step are checked once."""
        asked = {one.group.index: [self._asked(one, index) for index in range(one.vote.num_votes)] for one in voted if self.sees(one)}
        messages = list(dict.fromkeys(message for group in asked.values() for message in group if isinstance(message, str)))
        found = dict(zip(messages, self.pool.checks(messages), strict=True))
        checks = {place: tuple(found[one] if isinstance(one, str) else one for one in group) for place, group in asked.items()}
        return [replace(one, checks=checks.get(one.group.index, ())) for one in voted]

    def sees(self, one: VotedGroup) -> bool:
        return sees(self.seeds, self.frac, one.group.prompt.id)

    def _asked(self, one: VotedGroup, index: int) -> str | Check:
        """What the verifier is told of a completion, as JSON; or what is known without asking it."""
        reason = unrewarded(one, index)
        if reason == "truncated" or (reason and self.entries):
            return Check(None, reason)
        prompt = one.group.prompt
        question = question_of(prompt, self.questions)
        submission = Submission(prompt.id, question, one.group.completions[index].text, one.answers.texts[index])
        return json.dumps({"submission": asdict(submission), "entry": self.entries.get(prompt.id)})


def sees(seeds: Stream, frac: float, prompt_id: str) -> bool:
    """Whether the verifier of a run may see this prompt: `frac` of all prompts, chosen by a stable hash."""
    return seeds.at(stream="verifier", prompt_id=prompt_id).fraction() < frac
