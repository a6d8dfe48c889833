"""Small real values for tests: groups, votes, scored groups made from answer texts."""

from __future__ import annotations

from collections.abc import Sequence

from selftrain.rollout import read_and_count
from selftrain.types import Completion, Finish, Group, Message, PolicyVersion, Prompt, VotedGroup

VERSION = PolicyVersion(0, 3)


def completion(text: str, finish: Finish = Finish.STOP, num_tokens: int = 2) -> Completion:
    """A completion of `num_tokens` tokens with log-probability -0.5 and entropy 0.7 nats each."""
    return Completion(text, tuple(range(num_tokens)), (-0.5,) * num_tokens, (len(text),) * num_tokens, (0.7,) * num_tokens, finish, VERSION)


def group(answers: Sequence[str | None], prompt_id: str = "p0", index: int = 0, step: int = 0) -> Group:
    """One completion per answer, `#### answer`, or `hm` where the answer is None."""
    texts = [f"#### {answer}" if answer is not None else "hm" for answer in answers]
    return Group(step, index, Prompt(prompt_id, (Message("user", prompt_id),)), (1, 2), tuple(completion(text) for text in texts))


def voted(answers: Sequence[str | None], prompt_id: str = "p0", index: int = 0) -> VotedGroup:
    return read_and_count(group(answers, prompt_id, index))
