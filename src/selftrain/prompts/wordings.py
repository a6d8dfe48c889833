"""Second wordings of prompts with the same answer: of the task itself, by a second template, or by the policy, which is asked to rewrite the prompt."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from selftrain.errors import ConfigError
from selftrain.prompts.templates import apply_template
from selftrain.types import Message, Prompt, question_of

INSTRUCTION = (
    "Rewrite the following problem in other words. Keep its meaning, every number and every name, do not solve it, and reply with the rewritten problem "
    "only.\n\n"
)
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True, slots=True)
class TaskWording:
    """A procedural task words its problem anew. reword: a problem's text -> the same problem in other words, None for any other text.

    template: what is around training prompts. questions: by prompt id, the messages before it; a prompt that is missing there has no template around it.
    """

    reword: Callable[[str], str | None]
    template: str
    questions: Mapping[str, tuple[Message, ...]]
    num_paraphrases: int = 0

    def asked(self, prompt: Prompt) -> tuple[Message, ...] | None:  # noqa: ARG002
        return None

    def second(self, prompt: Prompt, paraphrase: str | None) -> tuple[Message, ...] | None:  # noqa: ARG002
        question = self.questions.get(prompt.id, prompt.messages)
        text = self.reword(question[-1].content)
        return None if text is None else apply_template(self.template, question, text)


@dataclass(frozen=True, slots=True)
class TemplateWording:
    """A second template around the same question."""

    template: str
    questions: Mapping[str, tuple[Message, ...]]
    num_paraphrases: int = 0

    def asked(self, prompt: Prompt) -> tuple[Message, ...] | None:  # noqa: ARG002
        return None

    def second(self, prompt: Prompt, paraphrase: str | None) -> tuple[Message, ...] | None:  # noqa: ARG002
        found = apply_template(self.template, self.questions.get(prompt.id, prompt.messages))
        return None if found == prompt.messages else found


@dataclass(frozen=True, slots=True)
class ParaphraseWording:
    """The policy rewrites the question; the first of `num_paraphrases` that can be used stands in the template of the training prompts."""

    template: str
    questions: Mapping[str, tuple[Message, ...]]
    num_paraphrases: int

    def asked(self, prompt: Prompt) -> tuple[Message, ...] | None:
        return (Message("user", INSTRUCTION + question_of(prompt, self.questions)),)

    def second(self, prompt: Prompt, paraphrase: str | None) -> tuple[Message, ...] | None:
        return None if paraphrase is None else apply_template(self.template, self.questions.get(prompt.id, prompt.messages), paraphrase)


def read_paraphrase(reply: str, asked: str) -> str | None:
    """The second wording in a policy's reply to `asked`: what stands after its thoughts, in one line of spaces.

    None where nothing does, where it is the question as it was, or where the numbers are not those of the question, each as often. Example: `12 and 5`
    cannot stand for `5 + 13`.
    """
    question = asked.removeprefix(INSTRUCTION)
    _, closed, after = reply.rpartition("</think>")
    text = " ".join(after.split()).strip("\"“”'` ")
    if (not closed and "<think>" in after) or not text or text.casefold() == " ".join(question.split()).casefold():
        return None
    return text if Counter(_NUMBER.findall(text)) == Counter(_NUMBER.findall(question)) else None


def check_wordings(second: Callable[[Prompt, None], tuple[Message, ...] | None], prompts: Iterable[Prompt], given: str, others: str) -> None:
    """Raises ConfigError, before the first sample, when a prompt has no second wording although nobody has to be asked for it.

    others: what the error says of prompts that no task words anew.
    """
    missing = [prompt for prompt in prompts if second(prompt, None) is None]
    if missing:
        shown = ", ".join(f"{prompt.id} ({prompt.text[:40]!r})" for prompt in missing[:3])
        raise ConfigError(
            given,
            f"{len(missing)} training prompts have no second wording of this kind: {shown}{', ...' if len(missing) > 3 else ''}",
            f"Prompts of built-in tasks are worded anew by the task; {others}",
        )
