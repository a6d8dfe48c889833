"""Which prompts are asked at a probe, made once from the held-aside prompts: no prompt of a probe set is ever trained on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from selftrain.probes.counterfactual import swapped
from selftrain.prompts.templates import apply_template
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, Message, Prompt, PromptSet

_NUMBER = re.compile(r"(?<![A-Za-z\d])\d+(?![A-Za-z\d])")
_TRIES = 32


class Kind(StrEnum):
    """What a prompt of a probe is for."""

    BASE = "base"
    """a held-aside prompt, asked once of the frozen start, with more votes"""
    OWN = "own"
    """a held-aside prompt as it is"""
    SUPPORT = "support"
    """the same where the start was not sure of its answer: what is asked to know how much of the start's vote the policy's answers have"""
    NUMBER = "number"
    """with another number in it: the answer must change"""
    REWORD = "reword"
    """in other words: the answer must not change"""
    SWAP = "swap"
    """about other people: the answer must not change"""
    OFF_DOMAIN = "off_domain"
    """about something else, asked once of the frozen start, whose completions are then watched"""
    CANARY = "canary"
    """a problem of a program that knows the answer"""


@dataclass(frozen=True, slots=True)
class Probe:
    """One prompt of a probe. of: the held-aside prompt that it is or was made of, or its own number or id. Prints into the record as `KIND:OF`."""

    kind: Kind
    of: str
    messages: tuple[Message, ...]

    @property
    def prompt(self) -> Prompt:
        return Prompt(f"{self.kind.value}:{self.of}", self.messages)


def address(prompt_id: str) -> tuple[Kind, str]:
    """(kind, of) of a recorded probe's prompt id."""
    kind, _, of = prompt_id.partition(":")
    return Kind(kind), of


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """All that is asked. canaries: by `of`, the right answer's key; empty unless the config names canaries (design law 1)."""

    probes: tuple[Probe, ...]
    canaries: Mapping[str, AnswerKey] = field(default_factory=dict, repr=False)

    def of_kind(self, *kinds: Kind) -> Iterator[Probe]:
        return (one for one in self.probes if one.kind in kinds)


Reword = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Wordings:
    """How held-aside prompts are changed. template: around the training prompts, with {prompt}. reword: the task's second wording of a question, None where it
    has none. is_problem: (question, changed question) -> whether it is still a problem of the task; always so for prompts that are not of a task.
    """

    template: str
    reword: Reword = field(default=lambda _: None)
    is_problem: Callable[[str, str], bool] = field(default=lambda _, __: True)


def make_probe_set(aside: PromptSet, wordings: Wordings, off_domain: Sequence[str], canaries: Mapping[Prompt, AnswerKey] | None = None) -> ProbeSet:
    """The probes of held-aside prompts, a pure function of its arguments. A prompt without digits or people just has no partner of that kind.

    canaries: prompts in the training template, with the key of the right answer.
    """
    probes: list[Probe] = []
    for prompt in aside:
        question = aside.questions.get(prompt.id, prompt.messages)
        probes.append(Probe(Kind.OWN, prompt.id, prompt.messages))
        probes.append(Probe(Kind.BASE, prompt.id, prompt.messages))
        for kind, messages in (
            (Kind.NUMBER, _with_last(question, _other_number(prompt.id, question[-1].content, wordings), wordings.template)),
            (Kind.REWORD, reworded(question, wordings)),
            (Kind.SWAP, _with_last(question, swapped(question[-1].content), wordings.template)),
        ):
            if messages is not None and messages != prompt.messages:
                probes.append(Probe(kind, prompt.id, messages))
    probes += [Probe(Kind.OFF_DOMAIN, f"{number:02d}", (Message("user", text),)) for number, text in enumerate(off_domain)]
    given = canaries or {}
    probes += [Probe(Kind.CANARY, prompt.id, prompt.messages) for prompt in given]
    return ProbeSet(tuple(probes), {prompt.id: key for prompt, key in given.items()})


def _other_number(prompt_id: str, text: str, wordings: Wordings) -> str | None:
    return with_other_number(text, Stream(0, stream="probe number", prompt_id=prompt_id), lambda found: wordings.is_problem(text, found))


def with_other_number(text: str, stream: Stream, is_problem: Callable[[str], bool] = lambda _: True) -> str | None:
    """The text with one of its numbers replaced by another one of as many digits; None where it has none, or none that keeps it a problem.

    Digits inside words (`x2`, `1st`) are no numbers. Example: `12+34` may become `12+71`.
    """
    places = [match.span() for match in _NUMBER.finditer(text)]
    if not places:
        return None
    for number in range(_TRIES):
        random = stream.at(index=number).generator()
        start, end = places[int(random.integers(len(places)))]
        lowest = 2 if end - start == 1 else 10 ** (end - start - 1)
        written = str(lowest + int.from_bytes(random.bytes(16), "big") % (10 ** (end - start) - lowest))
        found = text[:start] + written + text[end:]
        if written != text[start:end] and is_problem(found):
            return found
    return None


def reworded(question: tuple[Message, ...], wordings: Wordings) -> tuple[Message, ...]:
    """The question in the task's second wording; where it has none, in another frame that asks for the answer in the same form."""
    text = wordings.reword(question[-1].content)
    if text is not None:
        return apply_template(wordings.template, question, text)
    return apply_template(other_template(wordings.template), question)


def other_template(template: str) -> str:
    r"""A template that frames the question otherwise and keeps what is said around it. Example: `{prompt} Use \boxed{}.` -> `Here is a problem: ...`."""
    return template.replace("{prompt}", "Here is a problem to solve carefully.\n\n{prompt}\n\nThat is the whole problem.")


def _with_last(question: tuple[Message, ...], text: str | None, template: str) -> tuple[Message, ...] | None:
    return None if text is None else apply_template(template, question, text)
