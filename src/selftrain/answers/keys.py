"""Answer text -> AnswerKey: the canonical form that decides every equality.

Read in this order: plain numbers, choices, number words, dates and times, bases, numbers with units, then lists, relations and expressions; what none of
these understands, or what exceeds a budget, is compared as normalised text. Budgets: `MAX_PARSED` characters, and those of lexer, grammar and evaluate.
"""

from __future__ import annotations

import re

from selftrain.answers.dressing import undress
from selftrain.answers.lexer import Unreadable, tokens_of
from selftrain.answers.numerals import join_groups, plain_number
from selftrain.answers.shapes import shape
from selftrain.answers.units import split_unit
from selftrain.answers.words import digits_first, moment, number_in_words, shortened, text_key
from selftrain.types import AnswerKey

KEY_VERSION = "3"
"""Changes whenever some text gets another key than before; the ledger records it."""

MAX_PARSED = 1500

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,30})", re.ASCII)
_CHOICE = re.compile(r"\(\s?([A-Za-z])\s?\)\.?|([A-Ja-df-hj])\s?[.):]?|([ei])\s?\)|\[([A-J])\]|(?:[Oo]ption|[Cc]hoice|[Aa]nswer)\s\(?([A-Ja-j])\)?")
_BASE = re.compile(r"\(?\s?([0-9A-F]{1,200})\s?\)?\s?_\s?\{?\s?\(?\s?([0-9]{1,2}|two|three|four|five|six|seven|eight|nine|ten|twelve|sixteen)\s?\)?\s?\}?")
_BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "twelve": 12, "sixteen": 16}
_WITH_BASE = re.compile(r"([0-9A-F]{1,200}) (?:in |\()?base[ -]([0-9]{1,2}|[a-z]{3,7})\)?")
_SCALES = {"thousand": 3, "tausend": 3, "million": 6, "millionen": 6, "billion": 9, "milliarde": 9, "milliarden": 9, "trillion": 12, "billionen": 12}
_SCALE = re.compile(r"(?<=[0-9])\s?(thousand|tausend|million(?:en)?|billion(?:en)?|milliarden?|trillion)(?![a-z])", re.IGNORECASE)
_PERCENT = re.compile(r"([-+]?(?:[0-9./ {}]|\\frac)+)\s?\\?%")
_LEADING = re.compile(
    r"^\s*(?:\\approx(?![a-z])|\\simeq|=|~|(?:(?:the|die) )?(?:final |correct |richtige )?(?:answer|antwort)(?: is| ist| lautet|:)\s?:?)\s*", re.IGNORECASE
)
_MODULUS = re.compile(r"(.+?)\s*(?:\\pmod\s?\{?\s?([0-9]{1,40})\s?\}?|\(\s?\\?b?mod\s?\{?\s?([0-9]{1,40})\s?\}?\s?\))")
_CHOOSE = re.compile(r"(?<![A-Za-z])C\s?\(\s?(\d{1,4})\s?,\s?(\d{1,4})\s?\)|(?:\{\}|(?<![0-9A-Za-z]))[_^]\{?(\d{1,4})\}?\s?C\s?_\{?(\d{1,4})\}?")
_CHOOSE_RAISED = re.compile(r"(?<![A-Za-z])C\s?_\s?(?:\{\s?(\d{1,4})\s?\}|(\d))\s?\^\s?(?:\{\s?(\d{1,4})\s?\}|(\d))")
_TIMES_LETTER = re.compile(r"(?<=[0-9])\s?x\s?(?=10\s?\^)")


def key(answer: str) -> AnswerKey:
    """The canonical form of an answer, for any text: printable, at most some hundred characters for texts, the same in every process.

    Examples: key("0.50") == key("\\\\frac12") == "1/2", key("(B)") == "B", key("Evelyn.") == "'evelyn'".
    """
    if _INTEGER.fullmatch(answer):
        return AnswerKey(answer if answer != "-0" else "0")
    if len(answer) > MAX_PARSED:
        return AnswerKey(text_key(answer.strip()))
    text = undress(answer)
    leading = _LEADING.match(text)
    if leading:
        text = undress(text[leading.end() :])
    try:
        found = structured(text)
    except (ValueError, LookupError, ArithmeticError, RecursionError):
        found = None  # untrusted text that no reader understands is an ordinary case: it is compared as text
    return AnswerKey(text_key(text) if found is None else shortened(found))


def equal(a: str, b: str) -> bool:
    """Whether two answers have one key; reflexive, symmetric and transitive because of that."""
    return key(a) == key(b)


def structured(text: str) -> str | None:
    """The key of an undressed number, choice, moment or expression; None or `Unreadable` for everything else."""
    text = _SCALE.sub(_scaled, join_groups(text))
    modulus = _MODULUS.fullmatch(text) if text.count("mod") == 1 else None
    if modulus:
        return f"{structured(modulus.group(1)) or ''} mod {int(modulus.group(2) or modulus.group(3))}"
    number = plain_number(text)
    if number is not None:
        return str(number)
    choice = _CHOICE.fullmatch(text)
    if choice:
        letter = next(found for found in choice.groups() if found)
        if letter.upper() in "ABCDEFGHIJ":
            return letter.upper()
    special = number_in_words(text) or moment(text) or _base(text)
    if special is not None:
        return special
    percent = _PERCENT.fullmatch(text)
    if percent:
        return _counted(percent.group(1).strip(), "%")
    with_unit = split_unit(digits_first(text))
    if with_unit is not None:
        counted = _counted(*with_unit)
        if counted is not None:
            return counted
    return shape(tokens_of(_plain_operators(text)))


def _scaled(found: re.Match[str]) -> str:
    return f"\\cdot 10^{{{_SCALES[found.group(1).casefold()]}}}"


def _plain_operators(text: str) -> str:
    """`3 x 10^8`, `C(5,2)`, `_5C_2` and `C_5^2` with their usual signs."""
    text = _TIMES_LETTER.sub(r"\\times ", text)
    return _CHOOSE_RAISED.sub(_chosen, _CHOOSE.sub(_chosen, text)) if "C" in text else text


def _chosen(found: re.Match[str]) -> str:
    above, below = found.group(1) or (found.group(3) if found.re is _CHOOSE else found.group(2)), found.group(4) or found.group(2 if found.re is _CHOOSE else 3)
    return f"\\binom{{{above}}}{{{below}}}" if int(above) >= int(below) else found.group()


def _counted(number: str, unit: str) -> str | None:
    """The key of a constant with its unit; None where what stands before the unit is no number."""
    try:
        found = shape(tokens_of(_plain_operators(number)))
        if unit == "%":
            found = shape(tokens_of(f"({number})/100"))
    except Unreadable:
        return None
    if not found.lstrip("-~")[:1].isdigit():
        return None
    return f"{found} {unit}" if unit and unit != "%" else found


def _base(text: str) -> str | None:
    found = _BASE.fullmatch(text.replace(" ", "") if "_" in text else text) or _WITH_BASE.fullmatch(" ".join(text.split()))
    if found is None or not found.group(1)[0].isdigit():
        return None
    name = found.group(2)
    base = _BASE_WORDS.get(name) or (int(name) if name.isdigit() else 0)
    return f"{found.group(1).lstrip('0') or '0'}_{base}" if 2 <= base <= 36 else None
