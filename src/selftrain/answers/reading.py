"""Completions of a group -> Answers, with a bounded cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from selftrain.answers.extraction import extract
from selftrain.answers.keys import key
from selftrain.types import AnswerKey, Answers

MAX_CACHED = 500
_cached_key = lru_cache(maxsize=16384)(key)


def key_of(answer: str) -> AnswerKey:
    """`key(answer)`, remembered for the last 16,384 answers of at most `MAX_CACHED` characters (some 10 MB); safe in any thread."""
    return _cached_key(answer) if len(answer) <= MAX_CACHED else key(answer)


def read(texts: Sequence[str]) -> Answers:
    """The answers and keys of N completions, in their order; None where a completion has no readable answer."""
    answers = tuple(extract(text) for text in texts)
    return Answers(answers, tuple(None if answer is None else key_of(answer) for answer in answers))
