"""Self-judge: the policy grades each of its completions k times, and the share of yes is the reward; for answers in words, which no vote can compare.

    r_i = (verdicts yes on completion i) / (verdicts on completion i that were read)

What is judged is what stands after a completion's thoughts; completions that say the same to the letter share their judgements, which are then draws of
the same reply. Truncated and unread completions are not put to the judge. It costs k replies for each different completion (`cost/judge_tokens`). What
decides is not right by itself: a policy that likes its answers is rewarded for them, and a completion can learn to talk its judge into a yes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from selftrain.labels.rules import Bounds
from selftrain.policies.base import ExtraRequest, SamplingParams
from selftrain.reward import unrewarded
from selftrain.types import AnswerKey, Label, Message, Outcome, Prompt, Role, VotedGroup

YES = AnswerKey("yes")
Verdict = tuple[float | None, str]
"""(share of yes, None where no verdict was read; the note that goes with it)"""


def grade_prompt(question: str, answer: str) -> str:
    """The text that asks a policy whether an answer is right."""
    return f"Question: {question}\n\nAnswer: {answer}\n\nIs this answer right? Reply with one word, yes or no."


def graded_text(completion: str) -> str:
    """What is judged of a completion: what stands after its thoughts."""
    return completion.rpartition("</think>")[2].strip()


class SelfJudge:
    """A label source with two phases. question_of: what the judge is told was asked. num_judgements: k. params: of the replies. policy: who judges."""

    def __init__(
        self, question_of: Callable[[Prompt], str], num_judgements: int, params: SamplingParams, policy: Literal["current", "base", "ema"] = "current"
    ) -> None:
        self._question_of, self._num, self._params, self._policy = question_of, num_judgements, params, policy

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """k replies for each different completion that was not graded yet."""
        return [request for one in voted for request in self._requests_of(one)]

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG002
        """One label per group, without a key. The bounds of votes do not apply."""
        return [label_of(one) for one in voted]

    def _requests_of(self, one: VotedGroup) -> list[ExtraRequest]:
        group, known = one.group, {extra.group.prompt.id for extra in one.group.extras_of(Role.JUDGE)}
        asked: dict[str, str] = {}
        for index, name in names_of(one).items():
            if name not in known:
                asked[name] = grade_prompt(self._question_of(group.prompt), graded_text(group.completions[index].text))
        prompts = [Prompt(name, (Message("user", text),)) for name, text in asked.items()]
        return [ExtraRequest(group.index, Role.JUDGE, prompt, self._num, self._policy, self._params) for prompt in prompts]


def names_of(one: VotedGroup) -> dict[int, str]:
    """Index of each completion that is put to the judge -> id of its judge's prompt: `add/3 grade 0`, after the first completion that says the same."""
    firsts: dict[str, int] = {}
    found = {}
    for index, completion in enumerate(one.group.completions):
        if not unrewarded(one, index):
            first = firsts.setdefault(graded_text(completion.text), index)
            found[index] = f"{one.group.prompt.id} grade {first}"
    return found


def label_of(one: VotedGroup) -> Label:
    """The share of yes for each completion, 0 with the reason where there is none; undecided where nothing was put to the judge, or no verdict was read."""
    names, num = names_of(one), one.vote.num_votes
    grades = {extra.group.prompt.id: extra for extra in one.group.extras_of(Role.JUDGE)}
    judges = [done.version for name in names.values() for done in grades[name].group.completions]
    decided_by = f"judge {judges[0] if judges else one.group.completions[0].version}"
    found = [verdict_of(grades[names[index]]) if index in names else (None, unrewarded(one, index)) for index in range(num)]
    if all(value is None for value, _ in found):
        return Label(Outcome.NO_VERDICT if names else Outcome.NO_ANSWER, (None,) * num, "self_judge", decided_by)
    values, notes = tuple(value or 0.0 for value, _ in found), tuple(note for _, note in found)
    return Label(Outcome.DECIDED, (None,) * num, "self_judge", decided_by, values=values, notes=notes)


def verdict_of(grade: VotedGroup) -> Verdict:
    """The share of yes among the verdicts that were read; `partly_judged` where some of the replies were not."""
    vote = grade.vote
    if not grade.group.completions:
        return None, "no_room"
    if not vote.num_read:
        return None, "no_verdict"
    return vote.count_of(YES) / vote.num_read, "judged" if vote.num_read == vote.num_votes else "partly_judged"
