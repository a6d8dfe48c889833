"""Written numbers -> exact rationals: groups of thousands, decimal commas, percent, scientific, mixed and repeating forms.

A comma between digits is a separator of thousands before groups of three (1,234), a decimal comma after a leading 0, with two or more digits
on a side or before a unit (0,5; 3,14; 12,5; 1,5 h), and a list between single digits (1,2). With a full stop beside it the last of the two is the decimal sign.
"""

from __future__ import annotations

import re
from fractions import Fraction

MAX_DIGITS = 4000
MAX_EXPONENT = 4000

_INTEGER = re.compile(r"[+-]?\d{1,4000}")
_DECIMAL = re.compile(r"([+-]?)\s?(\d*)\.?(\d*)(?:[eE]([+-]?\d{1,5}))?")
_THOUSANDS = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:,\d{3})+)(?!\d|,\d)")
_SPACED = re.compile(r"(?<![\d.,/^ ])([1-9]\d{0,2})((?:[ '_]\d{3})+)(?![ ]?\d)")
_DOTTED = re.compile(r"(?<![\d.,])([1-9]\d{0,2})((?:\.\d{3})+),(\d+)(?![\d.,])|(?<![\d.,])([1-9]\d{0,2})((?:\.\d{3}){2,})(?![\d.,])")
_COMMA = re.compile(r"(?<![\d.,])(\d+),(\d+)(?![\d.,]\d|\d)")
_JOINED = re.compile(r"(?<![a-z])(?:and|or|und|oder)(?![a-z])")
_REPEATING = re.compile(r"([+-]?)(\d*)\.(\d*)(?:\\(?:overline|bar|dot)\s?\{?\s?(\d+)\s?\}?|\((\d+)\))")
_TRAILING_DOTS = re.compile(r"([+-]?)(\d*)\.(\d{1,40})\s?(?:\.\.\.|\\l?dots|\\cdots|…)")
_FRACTION = re.compile(r"([+-]?)\s?\\frac\s?\{\s?(-?\d{1,40})\s?\}\s?\{\s?(\d{1,40})\s?\}|([+-]?\d{1,40})\s?/\s?(\d{1,40})")
_MIXED = re.compile(
    r"([+-]?)\s?(\d{1,40})(?:\s?(?:\\frac\s?(?:\{\s?(\d{1,40})\s?\}|(\d))\s?(?:\{\s?(\d{1,40})\s?\}|(\d)))|\s(?:and )?(\d{1,40})\s?/\s?(\d{1,40}))"
)


def plain_number(text: str) -> Fraction | None:
    """The rational that `text` as a whole writes, or None. Digits and exponents beyond the limits are not read."""
    if _INTEGER.fullmatch(text):
        return Fraction(int(text))
    if len(text) > MAX_DIGITS or text.count(",") > 0:
        return None
    for reader in (_decimal, _fraction, _repeating):
        value = reader(text)
        if value is not None:
            return value
    return None


def join_groups(text: str) -> str:
    """`text` with its separators of thousands removed and decimal commas turned into points; lists and brackets keep their commas."""
    if "'" in text or "_" in text or " " in text:
        text = _SPACED.sub(lambda found: found.group().replace(" ", "").replace("'", "").replace("_", ""), text)
    if "." in text:
        text = _DOTTED.sub(_without_dots, text)
    if "," not in text:
        return text
    if not any(bracket in text for bracket in "([") and "\\{" not in text and "\\lbrace" not in text and text[0] != "{":
        text = _THOUSANDS.sub(lambda found: found.group().replace(",", ""), text)
        if text.count(",") == 1 and not _JOINED.search(text):
            text = _COMMA.sub(_decimal_comma, text)
    return text


def _without_dots(found: re.Match[str]) -> str:
    if found.group(3) is not None:
        return f"{found.group(1)}{found.group(2).replace('.', '')}.{found.group(3)}"
    return found.group().replace(".", "")


def _decimal_comma(found: re.Match[str]) -> str:
    whole, part = found.groups()
    behind = found.string[found.end() : found.end() + 2].strip()
    if whole == "0" or len(whole) > 1 or len(part) > 1 or behind[:1].isalpha() or behind[:1] in ("€", "%"):
        return f"{whole}.{part}"
    return found.group()


def _decimal(text: str) -> Fraction | None:
    found = _DECIMAL.fullmatch(text)
    if found is None:
        return None
    sign, whole, part, exponent = found.groups()
    if not whole and not part:
        return None
    shift = int(exponent or 0)
    if abs(shift) > MAX_EXPONENT:
        return None
    value = Fraction(int(whole + part), 10 ** len(part))
    value = value * Fraction(10) ** shift
    return -value if sign == "-" else value


def _fraction(text: str) -> Fraction | None:
    found = _FRACTION.fullmatch(text)
    if found is not None:
        sign, top, bottom, plain_top, plain_bottom = found.groups()
        divisor = int(bottom or plain_bottom)
        if not divisor:
            return None
        value = Fraction(int(top or plain_top), divisor)
        return -value if sign == "-" else value
    mixed = _MIXED.fullmatch(text)
    if mixed is None:
        return None
    sign, whole = mixed.group(1), int(mixed.group(2))
    numerator = int(mixed.group(3) or mixed.group(4) or mixed.group(7))
    denominator = int(mixed.group(5) or mixed.group(6) or mixed.group(8))
    if not 0 < numerator < denominator:
        return None
    value = whole + Fraction(numerator, denominator)
    return -value if sign == "-" else value


def _repeating(text: str) -> Fraction | None:
    found = _REPEATING.fullmatch(text)
    if found is not None:
        sign, whole, fixed, period = found.group(1), found.group(2), found.group(3), found.group(4) or found.group(5)
    else:
        dots = _TRAILING_DOTS.fullmatch(text)
        if dots is None:
            return None
        sign, whole, fixed = dots.groups()
        period = _visible_period(fixed)
        if not period:
            return None
    scale = 10 ** len(fixed)
    value = Fraction(int((whole or "0") + fixed), scale) + Fraction(int(period), (10 ** len(period) - 1) * scale)
    return -value if sign == "-" else value


def _visible_period(digits: str) -> str:
    """The shortest period shown at least three times (a single digit) or twice at the end of `digits`, or ""."""
    for size, times in ((1, 3), (2, 2), (3, 2), (6, 2)):
        period = digits[-size:]
        if len(digits) >= size * times and digits.endswith(period * times):
            return period
    return ""
