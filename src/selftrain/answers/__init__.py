"""Completion -> answer text -> AnswerKey. Two answers are equal if and only if their keys are.

`extract` and `extract_span` find the final answer of a completion, `key` gives its canonical form, `equal` compares two keys and nothing else,
`read` does both for a group. Pure Python, no I/O, nothing raises for any text, time linear in its length.
"""

from __future__ import annotations

from selftrain.answers.extraction import Span, extract, extract_span
from selftrain.answers.keys import KEY_VERSION, equal, key
from selftrain.answers.reading import read

__all__ = ["KEY_VERSION", "Span", "equal", "extract", "extract_span", "key", "read"]
