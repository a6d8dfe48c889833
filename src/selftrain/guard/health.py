"""Many weak signs -> one health score with an interval: 1 is well, one half is what a single rule at its limit leaves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from selftrain.guard.rules import Kind, Rule
from selftrain.guard.window import Window
from selftrain.types import Health

HALF = 0.5
MAX_SIGN = 4.0
"""a sign counts up to so many times its limit"""
Z = 1.645
"""90 % of a normal distribution"""


def part(value: float, limit: float) -> float:
    """What a value takes from the health, in bits: the square of value / limit, so that a value at its limit halves the score and noise hardly counts."""
    return min(MAX_SIGN, max(0.0, value / limit)) ** 2


def parts(rules: Iterable[Rule], window: Window) -> dict[str, float]:
    """Bits by rule, of the harm rules whose signals are there."""
    values = {rule: rule.measure(window) for rule in rules if rule.kind is Kind.HARM}
    return {rule.name: part(value, rule.limit) for rule, value in values.items() if value is not None}


def health_of(rules: Iterable[Rule], window: Window) -> Health:
    """`2 ** -(sum of the parts)`, with its 90 % interval by the jackknife over the steps of the baseline and of the window.

    Probes count as they were measured. Numbers are rounded to six decimals, so that a replay on another machine finds the same.
    """
    rules = tuple(rules)
    own = parts(rules, window)
    bits = sum(own.values())
    variance = sum((size - 1) / size * (sum(parts(rules, other).values()) - bits) ** 2 for size, other in window.without_one())
    spread = Z * math.sqrt(variance)
    return Health(score(bits), score(bits + spread), score(bits - spread), shown(own))


def is_lasting(rules: Iterable[Rule], window: Window) -> bool:
    """Whether the score is below one half without any single one of the last steps as well: one odd step stays in a window for as long as that is."""
    rules = tuple(rules)
    return all(score(sum(parts(rules, other).values())) < HALF for other in window.without_one_of_the_last())


def score(bits: float) -> float:
    return round(math.pow(2.0, -max(0.0, bits)), 6)


def shown(own: Mapping[str, float]) -> dict[str, float]:
    """The parts that are there, largest first."""
    rounded = {name: round(value, 6) for name, value in own.items()}
    return dict(sorted(((name, value) for name, value in rounded.items() if value > 0), key=lambda one: (-one[1], one[0])))
