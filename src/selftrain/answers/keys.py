"""Answer text -> AnswerKey."""

from __future__ import annotations

import re
from fractions import Fraction

from selftrain.types import AnswerKey

KEY_VERSION = "1"
"""Changes whenever some text gets another key than before; the ledger records it."""

_PLAIN = re.compile(r"[+-]?\d{1,300}(?:\.\d{1,300})?(?:/\d{1,300})?")


def key(answer: str) -> AnswerKey:
    """The canonical form of an answer: printable, the same in every process. Example: key("0.50") == key("1/2")."""
    text = " ".join(answer.strip().strip("$").replace(",", "").split()).casefold()
    if _PLAIN.fullmatch(text):
        top, _, bottom = text.partition("/")
        if not bottom or Fraction(bottom):
            return AnswerKey(f"{Fraction(top) / Fraction(bottom or 1)}")
    return AnswerKey(ascii(text)[1:-1])


def equal(a: str, b: str) -> bool:
    """Whether two answers have one key."""
    return key(a) == key(b)
