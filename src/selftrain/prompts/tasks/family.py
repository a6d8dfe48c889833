"""What a task family is: problems counted by an index, written in two surface forms, solved in written steps.

A problem is a tuple of small integers. A family numbers the problems of each level from 0, so distinct problems are distinct numbers
and nothing is ever drawn twice by accident.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

Numbers = tuple[int, ...]
"""One problem, as the family counts it. Example: `12+34` is (12, 34)."""


Slip = Callable[[int, int], int]
"""What a solver makes of a value in a step: (value, bound) to a number in [0, bound). `exact` gives the value itself."""


def exact(value: int, bound: int) -> int:  # noqa: ARG001
    """The solver that never slips."""
    return value


def slipping(generator: np.random.Generator, rate_frac: float) -> Slip:
    """A solver that writes another value, uniform over the bound, in a share `rate_frac` of its steps and goes on from there."""

    def slip(value: int, bound: int) -> int:
        if bound < 2 or generator.random() >= rate_frac:
            return value
        return (value + 1 + int(generator.integers(bound - 1))) % bound

    return slip


class Form(StrEnum):
    """How a problem is written. Both forms of a problem have the same answer."""

    SYMBOLS = "symbols"
    """`12+34`"""
    WORDS = "words"
    """`sum of 12 and 34`"""


@dataclass(frozen=True, slots=True)
class Problem:
    """A prompt text with its true answer and a solution in written steps.

    Example: `Problem("45+87", "132", "5+7+0=12;4+8+1=13####132")`.
    """

    text: str
    answer: str
    solution: str


@dataclass(frozen=True, slots=True)
class Family:
    """The five pure functions that make a family of problems.

    about: one line for people. max_level: levels are 1 <= level <= max_level, growing in difficulty.
    size: number of distinct problems of a level. pick: (level, index) to the problem, a bijection from 0 <= index < size(level).
    write: the prompt text in a form. read: the problem of a prompt text in either form, None for any other text.
    solve: the written steps and the answer; every computed value of a step goes through the slip.
    turn: the problem with its parts in another order and the same answer; None for a family that has no such order.
    """

    name: str
    about: str
    max_level: int
    size: Callable[[int], int]
    pick: Callable[[int, int], Numbers]
    write: Callable[[Numbers, Form], str]
    read: Callable[[str], Numbers | None]
    solve: Callable[[Numbers, Slip], tuple[str, str]]
    turn: Callable[[Numbers], Numbers] | None = None

    def problem(self, numbers: Numbers, form: Form) -> Problem:
        """The problem written in a form, with the solution that ends in `####ANSWER`."""
        steps, answer = self.solve(numbers, exact)
        return Problem(self.write(numbers, form), answer, f"{steps}####{answer}")


def arrangement(index: int, num_items: int, num_places: int) -> tuple[list[int], int]:
    """The index-th way to put `num_places` of `num_items` items in a row, and what is left of the index.

    Example: `arrangement(0, 3, 2)` is ([0, 1], 0); there are 3 * 2 of them, so `arrangement(6, 3, 2)` is ([0, 1], 1).
    """
    items = list(range(num_items))
    row = []
    for _ in range(num_places):
        index, place = divmod(index, len(items))
        row.append(items.pop(place))
    return row, index
