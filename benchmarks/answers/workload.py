"""Groups of completions with known answers: the workload of the speed and label figures. Deterministic."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

_FORMS: dict[str, list[list[str]]] = json.loads((Path(__file__).parent / "forms.json").read_text(encoding="utf-8"))["equal"]
_KINDS = [kind for kind, answers in _FORMS.items() if len(answers) >= 5 and kind not in ("unit_same", "words", "text", "code", "moment")]
_PROSE = (
    "First we collect what is known and write it down. ", "Adding 3 and 4 gives 7, which we keep in mind. ",
    "Let $x$ be the unknown, then $x^2 - 5x + 6$ factors. ",
    "Substituting back, we see that the left side is \\frac{3}{4} of the right side. ", "This step needs some care, since the sign may change here. ",
    "We check the case n = 2 by hand and find no contradiction. ", "Now multiply both sides by 12 and simplify. ",
)  # fmt: skip
LENGTH = 1200


@dataclass(frozen=True)
class KnownGroup:
    """Completions and, for each, which answer it gives (an index, None where it gives none). `label` is the answer with the most completions."""

    completions: list[str]
    answers: list[int | None]

    @property
    def label(self) -> int | None:
        given = [answer for answer in self.answers if answer is not None]
        return max(set(given), key=lambda answer: (given.count(answer), -answer)) if given else None


def groups(num_groups: int = 512, size: int = 64, seed: int = 0) -> list[KnownGroup]:
    """Groups in which 25 to 90 % of the completions give one answer in several spellings; 5 % have no answer or were cut off."""
    rng = random.Random(seed)
    return [_group(rng, size) for _ in range(num_groups)]


def _group(rng: random.Random, size: int) -> KnownGroup:
    answers = [spellings[:8] for spellings in rng.choice(_KINDS_OF_ANSWERS)]
    chosen = rng.sample(answers, min(len(answers), 6))
    share = rng.uniform(0.25, 0.9)
    completions: list[str] = []
    given: list[int | None] = []
    for _ in range(size):
        if rng.random() < 0.05:
            completions.append(_prose(rng) + rng.choice(("So the answer is \\boxed{\\frac{1", "I have to think about", "<answer>12")))
            given.append(None)
            if completions[-1].endswith("about"):
                completions[-1] = "We do not know yet. " * 60
            continue
        answer = 0 if rng.random() < share else rng.randrange(len(chosen))
        completions.append(_prose(rng) + _closing(rng, rng.choice(chosen[answer])))
        given.append(answer)
    return KnownGroup(completions, given)


def _prose(rng: random.Random) -> str:
    text = "".join(rng.choice(_PROSE) for _ in range(LENGTH // 60))
    return text[: LENGTH - 40] + "\n\n"


def _closing(rng: random.Random, answer: str) -> str:
    draw = rng.random()
    if draw < 0.7 or "$" in answer or "boxed" in answer:
        return f"Therefore, the answer is \\boxed{{{answer}}}."
    if draw < 0.82:
        return f"<answer>{answer}</answer>"
    if draw < 0.9:
        return f"#### {answer}"
    return f"The final answer is ${answer}$."


def _without_shared(answers: list[list[str]]) -> list[list[str]]:
    """Answers none of whose spellings would be broken by the markers."""
    return [kept for kept in ([form for form in spellings if form.count("{") == form.count("}") and form.strip()] for spellings in answers) if kept]


_KINDS_OF_ANSWERS = [_without_shared(_FORMS[kind]) for kind in _KINDS]
