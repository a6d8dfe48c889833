"""Whether two free-form answers say the same, decided by a policy that is asked: which pairs, in which words, and what its replies mean.

Answers with one text key are one before anybody is asked. Of the others, pairs of the most frequent are judged first, at most a given number of them; a pair
that was not judged, or whose reply could not be read, counts as different. A pair is asked in one direction first, and in the other where that reply was yes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import islice

from selftrain.answers.freeform import cluster
from selftrain.answers.keys import key
from selftrain.types import AnswerKey

Pair = tuple[str, str]
Verdicts = Mapping[Pair, bool | None]
"""Ordered pairs of answers -> whether the first says the same as the second; None where the judge gave no readable verdict."""

_WORD = re.compile(r"[^\W\d_]+")
_YES, _NO = ("yes", "ja"), ("no", "nein")


def ranked(answers: Sequence[str | None]) -> list[str]:
    """The different answers of a group, most frequent first (ties: by text key), each in the first of its ways of writing in order of text."""
    written = {key(answer): answer for answer in sorted((answer for answer in answers if answer is not None), reverse=True)}
    counts = Counter(key(answer) for answer in answers if answer is not None)
    return [written[text_key] for text_key in sorted(written, key=lambda found: (-counts[found], found))]


def pairs(answers: Sequence[str | None], max_pairs: int) -> list[Pair]:
    """At most `max_pairs` pairs of different answers: those among the two most frequent answers, then among the three, and so on."""
    different = ranked(answers)
    return list(islice(((different[i], different[j]) for j in range(len(different)) for i in range(j)), max_pairs))


def open_pairs(answers: Sequence[str | None], verdicts: Verdicts, max_pairs: int) -> list[Pair]:
    """The ordered pairs to be judged next, given the verdicts so far: each pair forwards, then those with a yes backwards; none at the end."""
    asked = pairs(answers, max_pairs)
    forwards = [pair for pair in asked if pair not in verdicts]
    return forwards or [(b, a) for a, b in asked if verdicts[a, b] and (b, a) not in verdicts]


def judge_prompt(question: str, a: str, b: str) -> str:
    """The text that asks a policy whether answer `a` says the same as answer `b`."""
    return (
        f"Question: {question}\n\nAnswer 1: {a}\n\nAnswer 2: {b}\n\n"
        "Does answer 1 say the same as answer 2, so that both are right or both are wrong? Reply with one word, yes or no."
    )


def read_verdict(reply: str) -> bool | None:
    """The judge's yes or no: the first such word after its thoughts; None where there is none or where its thoughts do not end."""
    _, closed, after = reply.rpartition("</think>")
    if not closed and "<think>" in after:
        return None
    for word in _WORD.findall(after.casefold()):
        if word in _YES + _NO:
            return word in _YES
    return None


def by_verdicts(answers: Sequence[str | None], verdicts: Verdicts) -> tuple[AnswerKey | None, ...]:
    """Keys of N answers by the verdicts of a judge: two are in one cluster only where all of its pairs were judged the same, in both directions."""
    chosen = {key(answer): answer for answer in ranked(answers)}
    return cluster(answers, lambda a, b: verdicts.get((chosen[key(a)], chosen[key(b)])) is True)
