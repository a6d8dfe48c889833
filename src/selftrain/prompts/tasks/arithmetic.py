"""Written arithmetic: column by column from the right, with the carry or borrow as the third number of each step."""

from __future__ import annotations

import math
import re

from selftrain.prompts.tasks.family import Family, Form, Numbers, Slip

MODULI = (5, 7, 9)


def _lowest(level: int) -> int:
    """The smallest number with `level` digits; one digit begins at 0."""
    return 0 if level == 1 else 10 ** (level - 1)


def _span(level: int) -> int:
    """How many numbers have `level` digits."""
    return int(10**level) - _lowest(level)


def _pair(pattern: str, text: str) -> Numbers | None:
    """The numbers in a text that matches the pattern as a whole, in the order of its groups."""
    match = re.fullmatch(pattern, text)
    return tuple(int(part) for part in match.groups()) if match else None


def _columns(a: int, b: int) -> list[tuple[int, int]]:
    """The digits of two numbers side by side from the right, the shorter one filled with 0."""
    width = max(len(str(a)), len(str(b)))
    return [(int(x), int(y)) for x, y in zip(reversed(f"{a:0{width}d}"), reversed(f"{b:0{width}d}"), strict=True)]


def _turn(numbers: Numbers) -> Numbers:
    return numbers[::-1]


def _pick_two(level: int, index: int) -> Numbers:
    first, second = divmod(index, _span(level))
    return _lowest(level) + first, _lowest(level) + second


def _write_add(numbers: Numbers, form: Form) -> str:
    a, b = numbers
    return f"{a}+{b}" if form is Form.SYMBOLS else f"sum of {a} and {b}"


def _read_add(text: str) -> Numbers | None:
    return _pair(r"([0-9]{1,30})\+([0-9]{1,30})", text) or _pair(r"sum of ([0-9]{1,30}) and ([0-9]{1,30})", text)


def _solve_add(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    steps, carry, total = [], 0, 0
    for place, (x, y) in enumerate(_columns(*numbers)):
        value = slip(x + y + carry, 20)
        steps.append(f"{x}+{y}+{carry}={value}")
        total += value % 10 * 10**place
        carry = value // 10
    return ";".join(steps), str(total + carry * 10 ** len(steps))


def _pick_sub(level: int, index: int) -> Numbers:
    """The index-th pair larger > smaller: index counts the pairs under each larger number."""
    larger = (1 + math.isqrt(1 + 8 * index)) // 2
    smaller = index - larger * (larger - 1) // 2
    return _lowest(level) + larger, _lowest(level) + smaller


def _write_sub(numbers: Numbers, form: Form) -> str:
    a, b = numbers
    return f"{a}-{b}" if form is Form.SYMBOLS else f"take {b} from {a}"


def _read_sub(text: str) -> Numbers | None:
    turned = _pair(r"take ([0-9]{1,30}) from ([0-9]{1,30})", text)
    numbers = (turned[1], turned[0]) if turned else _pair(r"([0-9]{1,30})-([0-9]{1,30})", text)
    return numbers if numbers and numbers[0] >= numbers[1] else None


def _solve_sub(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    steps, borrow, difference = [], 0, 0
    for place, (x, y) in enumerate(_columns(*numbers)):
        top = x + 10 if x - y - borrow < 0 else x
        value = slip(top - y - borrow, 10)
        steps.append(f"{top}-{y}-{borrow}={value}")
        difference += value * 10**place
        borrow = int(top > x)
    return ";".join(steps), str(difference)


def _pick_mul(level: int, index: int) -> Numbers:
    first, second = divmod(index, 8)
    return _lowest(level) + first, 2 + second


def _write_mul(numbers: Numbers, form: Form) -> str:
    a, b = numbers
    return f"{a}*{b}" if form is Form.SYMBOLS else f"{b} times {a}"


def _read_mul(text: str) -> Numbers | None:
    turned = _pair(r"([2-9]) times ([0-9]{1,30})", text)
    return (turned[1], turned[0]) if turned else _pair(r"([0-9]{1,30})\*([2-9])", text)


def _solve_mul(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    a, b = numbers
    steps, carry, product = [], 0, 0
    for place, x in enumerate(reversed([int(digit) for digit in str(a)])):
        value = slip(x * b + carry, 90)
        steps.append(f"{x}*{b}+{carry}={value}")
        product += value % 10 * 10**place
        carry = value // 10
    return ";".join(steps), str(product + carry * 10 ** len(steps))


def _pick_digits(level: int, index: int) -> Numbers:
    number, modulus = divmod(index, len(MODULI))
    return (*(int(digit) for digit in f"{number:0{level + 1}d}"), MODULI[modulus])


def _turn_digits(numbers: Numbers) -> Numbers:
    *digits, modulus = numbers
    return (*reversed(digits), modulus)


def _write_digits(numbers: Numbers, form: Form) -> str:
    *digits, modulus = numbers
    if form is Form.SYMBOLS:
        return f"({'+'.join(map(str, digits))})%{modulus}"
    return f"digit sum of {''.join(map(str, digits))} mod {modulus}"


def _read_digits(text: str) -> Numbers | None:
    match = re.fullmatch(r"\(([0-9](?:\+[0-9]){1,30})\)%([579])", text) or re.fullmatch(r"digit sum of ([0-9]{2,31}) mod ([579])", text)
    return (*(int(digit) for digit in match.group(1).replace("+", "")), int(match.group(2))) if match else None


def _solve_digits(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    *digits, modulus = numbers
    steps, rest = [], 0
    for digit in digits:
        value = slip(rest + digit, 19)
        steps.append(f"{rest}+{digit}={value}>{value % modulus}")
        rest = value % modulus
    return ";".join(steps), str(rest)


ADD = Family("add", "sum of two numbers of LEVEL digits", 30, lambda level: _span(level) ** 2, _pick_two, _write_add, _read_add, _solve_add, _turn)
SUB = Family(
    "sub",
    "difference of two numbers of LEVEL digits, never negative",
    30,
    lambda level: _span(level) * (_span(level) - 1) // 2,
    _pick_sub,
    _write_sub,
    _read_sub,
    _solve_sub,
)
MUL = Family("mul", "a number of LEVEL digits times 2 to 9", 30, lambda level: _span(level) * 8, _pick_mul, _write_mul, _read_mul, _solve_mul)
DIGITS = Family(
    "digits",
    "sum of LEVEL + 1 digits, modulo 5, 7 or 9",
    30,
    lambda level: int(10 ** (level + 1)) * len(MODULI),
    _pick_digits,
    _write_digits,
    _read_digits,
    _solve_digits,
    _turn_digits,
)
