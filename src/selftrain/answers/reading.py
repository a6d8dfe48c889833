"""Completions of a group -> Answers, with a bounded cache."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from selftrain.answers.extraction import extract
from selftrain.answers.keys import key
from selftrain.types import Answers

_cached_key = lru_cache(maxsize=4096)(key)


def read(texts: Sequence[str]) -> Answers:
    """The answers and keys of N completions, in their order. Equal answer texts are read once; safe to call from many threads."""
    answers = tuple(extract(text) for text in texts)
    return Answers(answers, tuple(None if answer is None else _cached_key(answer) for answer in answers))
