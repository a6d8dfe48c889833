"""How the completions of a group are read, in two pure phases: what has to be asked, then the answers and the vote."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from selftrain.answers.freeform import Reader, freeform_answer
from selftrain.answers.judge import Pair, by_verdicts, judge_prompt, open_pairs, pairs, read_verdict
from selftrain.policies.base import ExtraRequest, SamplingParams
from selftrain.prompts.wordings import read_paraphrase
from selftrain.rollout import read_and_count, readable_texts
from selftrain.types import AnswerKey, Answers, Group, Message, Prompt, Role, VotedGroup
from selftrain.vote import count


class Reading(Protocol):
    """requests: what has to be sampled before the groups of a step can be read; nothing at the end. The call reads a group."""

    def requests(self, groups: Sequence[Group]) -> list[ExtraRequest]: ...

    def __call__(self, group: Group) -> VotedGroup: ...


@dataclass(frozen=True, slots=True)
class PlainReading:
    """Reads the completions by themselves."""

    reader: Reader

    def requests(self, groups: Sequence[Group]) -> list[ExtraRequest]:  # noqa: ARG002
        return []

    def __call__(self, group: Group) -> VotedGroup:
        return read_and_count(group, self.reader)


@dataclass(frozen=True, slots=True)
class JudgedReading:
    """Reads free-form answers and asks the policy which of them say the same (`answers.judge` has the rules).

    max_pairs: how many pairs of answers of a group are judged. params: of the judge's replies. question_of: what the judge is told was asked.
    """

    max_pairs: int
    params: SamplingParams
    question_of: Callable[[Prompt], str]

    def requests(self, groups: Sequence[Group]) -> list[ExtraRequest]:
        """One completion for each pair that has to be judged next."""
        return [request for group in groups for request in self._requests_of(group)]

    def __call__(self, group: Group) -> VotedGroup:
        answers = freeform_answers(group)
        keys = by_verdicts(answers, self._verdicts(group, answers))
        return VotedGroup(group, Answers(tuple(answers), keys), count(keys))

    def _requests_of(self, group: Group) -> list[ExtraRequest]:
        answers = freeform_answers(group)
        names, question = self._names(group, answers), self.question_of(group.prompt)
        asked = open_pairs(answers, self._verdicts(group, answers), self.max_pairs)
        prompts = [Prompt(names[pair], (Message("user", judge_prompt(question, *pair)),)) for pair in asked]
        return [ExtraRequest(group.index, Role.JUDGE, prompt, 1, params=self.params) for prompt in prompts]

    def _names(self, group: Group, answers: Sequence[str | None]) -> dict[Pair, str]:
        """Ordered pair -> id of its judge's prompt: `add/3 judge 0` forwards, `add/3 judge 0 back` backwards."""
        names: dict[Pair, str] = {}
        for number, (a, b) in enumerate(pairs(answers, self.max_pairs)):
            names |= {(a, b): f"{group.prompt.id} judge {number}", (b, a): f"{group.prompt.id} judge {number} back"}
        return names

    def _verdicts(self, group: Group, answers: Sequence[str | None]) -> dict[Pair, bool | None]:
        found = {extra.group.prompt.id: verdict_of(extra) for extra in group.extras_of(Role.JUDGE)}
        return {pair: found[name] for pair, name in self._names(group, answers).items() if name in found}


def freeform_answers(group: Group) -> list[str | None]:
    """What each completion says in words; None where it has no answer or was cut off."""
    return [freeform_answer(text) for text in readable_texts(group)]


def read_judge(group: Group) -> VotedGroup:
    """A judge's replies as verdicts, `yes` or `no`. A reply that was cut off counts too: its first word decides."""
    verdicts = [read_verdict(completion.text) for completion in group.completions]
    keys = tuple(None if verdict is None else AnswerKey("yes" if verdict else "no") for verdict in verdicts)
    return VotedGroup(group, Answers(keys, keys), count(keys))


def read_paraphrases(group: Group) -> VotedGroup:
    """The second wordings that can be used, as they will be put to the policy; None where a reply was cut off or `read_paraphrase` refuses it."""
    found = [read_paraphrase(text, group.prompt.text) for text in readable_texts(group)]
    keys = tuple(None if text is None else AnswerKey(text) for text in found)
    return VotedGroup(group, Answers(tuple(found), keys), count(keys))


def verdict_of(judged: VotedGroup) -> bool | None:
    """The verdict of a judge's group; None where its reply was not readable or its prompt had no room for one."""
    return judged.vote.winners[0] == "yes" if judged.vote.winners else None
