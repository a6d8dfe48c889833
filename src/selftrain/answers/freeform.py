"""Answers that are sentences: which of them say the same.

A clustering takes the N answers of a group and gives one key each, equal for answers that say the same. Two answers share a key only where *all* pairs
of their cluster agree, in both directions, so the result is an equivalence relation whatever the pairwise judgement is; it does not depend on the order
of the answers. Shipped: `text` (normalised text), `overlap` (the same numbers, negations and nearly the same content words), and `judge`, where a policy is
asked (`answers.judge`). Others are named `package.module:function`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from selftrain.answers.extraction import marked_span
from selftrain.answers.keys import key
from selftrain.answers.reading import read
from selftrain.errors import ConfigError
from selftrain.extension import resolve
from selftrain.types import AnswerKey, Answers

Clustering = Callable[[Sequence[str | None]], tuple[AnswerKey | None, ...]]
"""N answers (None where unread) -> N keys, None exactly where the answer is None."""

MAX_ANSWER = 2000
MIN_OVERLAP_FRAC = 0.75
_WORD = re.compile(r"\d+(?:[.,]\d+)*|[^\W\d_]+(?:n't)?")
_NEGATIONS = frozenset(re.split(r"\s+", "no not never none nor neither without cannot nicht kein keine keiner keinen nie niemals ohne weder"))
_EMPTY_WORDS = frozenset(
    re.split(
        r"\s+",
        """a an the is are was were be been being it its this that these those of to in on at by for from with and or as so then thus hence therefore
        answer final i we you they he she there here very really just also der die das ein eine einer eines einem einen ist sind war und oder es sich
        dies diese dieser dass zu im am von mit auf für also daher somit antwort ich wir sie er""",
    )
)
_ENDINGS = ("ingly", "edly", "ungen", "ing", "ies", "ied", "ung", "ed", "es", "ly", "en", "er", "em", "s", "e", "n")


def freeform_answer(completion: str) -> str | None:
    """What a completion says in words: its marked answer, else its last paragraph, of which at most the last `MAX_ANSWER` characters."""
    cut_off, span = marked_span(completion)
    if cut_off or span is not None:
        return None if span is None else span.text
    text = completion.rpartition("</think>")[2]
    paragraphs = [paragraph for paragraph in text[-4 * MAX_ANSWER :].split("\n\n") if paragraph.strip()]
    return paragraphs[-1].strip()[-MAX_ANSWER:] if paragraphs else None


def cluster(answers: Sequence[str | None], same: Callable[[str, str], bool]) -> tuple[AnswerKey | None, ...]:
    """Keys of N answers by a pairwise judgement, which is asked in both directions for every two answers with different text keys.

    The most frequent answers open clusters first (ties: by text); an answer joins the first cluster with all of whose members it agrees.
    The key of a cluster is that of the answer which opened it.
    """
    text_keys = [None if answer is None else key(answer) for answer in answers]
    written: dict[AnswerKey, str] = {}
    for answer, text_key in zip(answers, text_keys, strict=True):
        if answer is not None and text_key is not None:
            written[text_key] = min(answer, written.get(text_key, answer))
    counts = Counter(text_key for text_key in text_keys if text_key is not None)
    clusters: list[list[AnswerKey]] = []
    for text_key in sorted(written, key=lambda found: (-counts[found], found)):
        for members in clusters:
            if all(same(written[text_key], written[member]) and same(written[member], written[text_key]) for member in members):
                members.append(text_key)
                break
        else:
            clusters.append([text_key])
    key_of_member = {member: members[0] for members in clusters for member in members}
    return tuple(None if text_key is None else key_of_member[text_key] for text_key in text_keys)


def by_text(answers: Sequence[str | None]) -> tuple[AnswerKey | None, ...]:
    """Keys of N answers by their canonical text: only differences of case, space and dressing are overlooked."""
    return tuple(None if answer is None else key(answer) for answer in answers)


def by_overlap(answers: Sequence[str | None]) -> tuple[AnswerKey | None, ...]:
    """Keys of N answers by their words: two agree where numbers and negations are the same and `MIN_OVERLAP_FRAC` of the content words is shared."""
    read = {answer: _content(answer) for answer in answers if answer is not None}

    def same(a: str, b: str) -> bool:
        (words_a, fixed_a), (words_b, fixed_b) = read[a], read[b]
        return fixed_a == fixed_b and len(words_a & words_b) >= MIN_OVERLAP_FRAC * max(1, len(words_a | words_b))

    return cluster(answers, same)


CLUSTERINGS: dict[str, Clustering] = {"text": by_text, "overlap": by_overlap}


def clustering(name: str) -> Clustering:
    """The clustering of this name, or the function that `package.module:function` names, whose values are checked. Raises ConfigError."""
    if name == "judge":
        raise ConfigError("clustering judge", "it asks a model", "train with --labels.clustering judge, or vote with --clustering judge --judge-model MODEL")
    return resolve("labels.clustering", name, {"exact": by_text, **CLUSTERINGS, "judge": by_text})


Reader = Callable[[Sequence[str]], Answers]
"""Completions of a group -> what was read in them."""


def reader(name: str) -> Reader:
    """How completions are read: `exact`, by canonical keys; or as free-form answers, by the clustering of this name."""
    if name == "exact":
        return read
    grouping = clustering(name)

    def read_freeform(texts: Sequence[str]) -> Answers:
        answers = tuple(freeform_answer(text) for text in texts)
        return Answers(answers, grouping(answers))

    return read_freeform


def _content(answer: str) -> tuple[frozenset[str], tuple[tuple[str, ...], bool]]:
    """(stems of the content words, (the numbers in their order, whether an odd number of negations occurs))."""
    words = _WORD.findall(answer[:MAX_ANSWER].casefold())
    numbers = tuple(key(word) for word in words if word[0].isdigit())
    negated = sum(word in _NEGATIONS or word.endswith("n't") for word in words) % 2 == 1
    kept = [word for word in words if not word[0].isdigit() and word not in _EMPTY_WORDS and word not in _NEGATIONS]
    return frozenset(map(_stem, kept)), (numbers, negated)


def _stem(word: str) -> str:
    for ending in _ENDINGS:
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word
