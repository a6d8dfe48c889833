"""Expressions -> key texts: rationals in full, other numbers by 45 digits, functions of free variables by a hash of their values at fixed points."""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache
from hashlib import sha256

from selftrain.answers import precision as fixed
from selftrain.answers.evaluate import Evaluator, Value, as_complex, rational
from selftrain.answers.grammar import Node, Parser
from selftrain.answers.lexer import Token, Unreadable
from selftrain.answers.points import FAR, NEAR
from selftrain.answers.precision import BITS, ONE, TINY, Complex

_LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Expression:
    """A parsed expression and its values. `variables` is empty for a constant."""

    def __init__(self, tokens: list[Token]) -> None:
        if not tokens:
            raise Unreadable
        parser = Parser(tokens)
        self.tree: Node = parser.parse()
        self.variables = parser.variables
        self.has_sign = parser.has_sign

    def values(self, sign: int = 1) -> list[Value]:
        """The value at each point: one for a constant; for a function those near 1, and those far from it where they are real and in range.

        Where it is not real (`\\ln\\frac{1+x}{1-x}` beyond 1) equal forms may take different branches.
        """
        if not self.variables:
            return [Evaluator(0, sign).value(self.tree)]
        near = [Evaluator(point, sign).value(self.tree) for point in NEAR]
        try:
            far = [Evaluator(point, sign).value(self.tree) for point in FAR]
        except Unreadable:
            return near
        return near + far if all(not y and (not x or abs(x) >= TINY) for x, y in map(as_complex, far)) else near


def key_of_values(values: list[Value]) -> str:
    """The key text of a number (one value, or equal values) or of a function (values at all points)."""
    if len(values) == 1:
        return number_text(values[0])
    shown = [digits(as_complex(value)) for value in values]
    if len(set(shown)) == 1:
        return number_text(values[0])
    name = "f:" + sha256("|".join(shown).encode()).hexdigest()[:40]
    return _single_variables().get(name, name)


@lru_cache(maxsize=1)
def _single_variables() -> dict[str, str]:
    """The fingerprints of single letters, so that a lone variable is shown as its name; a to j are choices, written large."""
    found: dict[str, str] = {}
    for letter in _LETTERS + _LETTERS.upper():
        shown = [digits(as_complex(Evaluator(point).value(("var", letter)))) for point in (*NEAR, *FAR)]
        found["f:" + sha256("|".join(shown).encode()).hexdigest()[:40]] = letter.upper() if letter in "abcdfghj" else letter
    return found


def number_text(value: Value) -> str:
    """`-7/3` for a rational, `~1.41421...e0` for an irrational real, `3+4i` for a complex number."""
    if isinstance(value, Fraction):
        return str(value)
    real, imaginary = value
    if not _vanishes(imaginary, real):
        return f"{_part(real)}{'+' if imaginary > 0 else '-'}{_part(abs(imaginary))}i" if not _vanishes(real, imaginary) else f"{_part(imaginary)}i"
    return _part(real)


def digits(value: Complex) -> str:
    """45 significant digits of both parts; parts that are rounding of the other are 0."""
    real, imaginary = value
    return f"{_decimal(0 if _vanishes(real, imaginary) else real)},{_decimal(0 if _vanishes(imaginary, real) else imaginary)}"


def _vanishes(part: int, other: int) -> bool:
    return abs(part) < max(abs(other), ONE) >> 300


def _part(x: int) -> str:
    near = rational((x, 0))
    return str(near) if near is not None else "~" + _decimal(x)


def _decimal(x: int) -> str:
    if not x:
        return "0"
    sign, x = ("-", -x) if x < 0 else ("", x)
    shift = 45 - (x.bit_length() - BITS) * 30103 // 100000
    scaled = x * 10**shift if shift >= 0 else x // 10**-shift
    shown = str((scaled + (ONE >> 1)) >> BITS)
    return f"{sign}{shown[0]}.{shown[1:]}e{len(shown) - 1 - shift}"


def same(a: Complex, b: Complex) -> bool:
    """Whether two values agree to 80 digits."""
    x, y = fixed.add(a, fixed.negate(b))
    return abs(x) + abs(y) < max(abs(a[0]) + abs(a[1]), ONE) >> 280
