"""Ordering: sort digits by insertion, line people up by height from facts in any order."""

from __future__ import annotations

import itertools
import math
import re

from selftrain.prompts.tasks.family import Family, Form, Numbers, Slip, arrangement

NAMES = "abcdefghij"


def _pick_sort(level: int, index: int) -> Numbers:
    return tuple(int(digit) for digit in f"{index:0{level + 2}d}")


def _turn_sort(numbers: Numbers) -> Numbers:
    return numbers[::-1]


def _write_sort(numbers: Numbers, form: Form) -> str:
    return f"sort {''.join(map(str, numbers))}" if form is Form.SYMBOLS else f"{' '.join(map(str, numbers))} in order"


def _read_sort(text: str) -> Numbers | None:
    match = re.fullmatch(r"sort ([0-9]{3,32})", text) or re.fullmatch(r"([0-9](?: [0-9]){2,31}) in order", text)
    return tuple(int(digit) for digit in match.group(1).replace(" ", "")) if match else None


def _solve_sort(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    row: list[int] = []
    steps = []
    for digit in numbers:
        row.insert(slip(sum(other <= digit for other in row), len(row) + 1), digit)
        steps.append("".join(map(str, row)))
    return ";".join(steps), ",".join(map(str, row))


def _size_tall(level: int) -> int:
    return math.perm(len(NAMES), level + 2) * math.factorial(level + 1)


def _pick_tall(level: int, index: int) -> Numbers:
    people, index = arrangement(index, len(NAMES), level + 2)
    places, _ = arrangement(index, level + 1, level + 1)
    return tuple(person for place in places for person in people[place : place + 2])


def _facts(numbers: Numbers) -> list[tuple[int, int]]:
    """The (taller, shorter) pairs of a height problem."""
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _turn_tall(numbers: Numbers) -> Numbers:
    """The facts from the last to the first."""
    return tuple(person for fact in reversed(_facts(numbers)) for person in fact)


def _write_tall(numbers: Numbers, form: Form) -> str:
    sign, gap = (">", " ") if form is Form.SYMBOLS else (" over ", ", ")
    return gap.join(f"{NAMES[taller]}{sign}{NAMES[shorter]}" for taller, shorter in _facts(numbers))


def _read_tall(text: str) -> Numbers | None:
    for sign, gap in ((">", " "), (" over ", ", ")):
        if re.fullmatch(rf"[a-j]{sign}[a-j](?:{gap}[a-j]{sign}[a-j]){{1,8}}", text):
            numbers = tuple(NAMES.index(name) for fact in text.split(gap) for name in fact.split(sign))
            return numbers if _is_one_line(numbers) else None
    return None


def _is_one_line(numbers: Numbers) -> bool:
    """Whether the facts put all people into one line."""
    facts = dict(_facts(numbers))
    tallest = set(facts) - set(facts.values())
    return len(facts) == len(set(facts.values())) == len(numbers) // 2 and len(tallest) == 1 and len(_line(numbers)) == len(facts) + 1


def _line(numbers: Numbers) -> list[int]:
    """The people from tall to short."""
    facts = dict(_facts(numbers))
    person = next(iter(set(facts) - set(facts.values())))
    line = [person]
    while line[-1] in facts:
        line.append(facts[line[-1]])
    return line


def _solve_tall(numbers: Numbers, slip: Slip) -> tuple[str, str]:
    """Each next person is the one below the last; after a slip to somebody with no one below left, the first of those who remain."""
    shorter_than, remaining = dict(_facts(numbers)), _line(numbers)
    people: list[int] = []
    while remaining:
        below = shorter_than.get(people[-1]) if people else None
        place = remaining.index(below) if below in remaining else 0
        people.append(remaining.pop(slip(place, len(remaining))))
    line = [NAMES[person] for person in people]
    steps = [f"{taller}>{shorter}" for taller, shorter in itertools.pairwise(line)]
    return ";".join(steps), ",".join(line)


SORT = Family(
    "sort", "LEVEL + 2 digits in rising order", 30, lambda level: int(10 ** (level + 2)), _pick_sort, _write_sort, _read_sort, _solve_sort, _turn_sort
)
TALL = Family(
    "tall", "LEVEL + 2 people from tall to short, from facts in any order", 8, _size_tall, _pick_tall, _write_tall, _read_tall, _solve_tall, _turn_tall
)
