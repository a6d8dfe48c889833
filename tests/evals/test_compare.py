"""Paired differences, problems gained and lost."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from selftrain.errors import PromptError
from selftrain.evals import gained_and_lost, paired_difference
from selftrain.evals.bootstrap import mean_interval
from tests.evals.scripted import of_results, result

BEFORE = of_results(result("a", 0), result("b", 2, maj_score=1.0), result("c", 4, maj_score=1.0), result("d", 1, maj_score=0.5))
AFTER = of_results(result("a", 3, maj_score=1.0), result("b", 2, maj_score=0.0), result("c", 2, maj_score=0.5), result("d", 1, maj_score=0.5))


@pytest.mark.parametrize(
    ("measure", "differences"),
    [("avg", [0.75, 0.0, -0.5, 0.0]), ("maj", [1.0, -1.0, -0.5, 0.0]), ("pass", [1.0, 0.0, 0.0, 0.0])],
)
def test_differences_by_hand(measure: str, differences: list[float]) -> None:
    assert paired_difference(BEFORE, AFTER, measure) == mean_interval(differences)
    assert paired_difference(BEFORE, AFTER, measure).value == pytest.approx(sum(differences) / 4)
    assert paired_difference(AFTER, BEFORE, measure).value == pytest.approx(-sum(differences) / 4)


def test_the_same_gain_everywhere_is_certain_though_problems_differ() -> None:
    """Side by side the two intervals overlap."""
    counts = np.random.default_rng(0).integers(0, 4, size=12)
    before = of_results(*(result(str(i), int(count)) for i, count in enumerate(counts)))
    after = of_results(*(result(str(i), int(count) + 1) for i, count in enumerate(counts)))
    difference = paired_difference(before, after)
    assert (difference.value, difference.low, difference.high) == (0.25, 0.25, 0.25)
    assert difference.excludes_zero
    assert after.avg.low < before.avg.high


def test_gained_and_lost_by_hand() -> None:
    """b lost its vote; c still has half of it; d did not move."""
    found = gained_and_lost(BEFORE, AFTER)
    assert found.gained == ("a",)
    assert found.lost == ("b",)
    assert found.avg_gained == ("a",)
    assert found.avg_lost == ("c",)


def test_different_numbers_of_samples() -> None:
    twice = replace(AFTER, num_samples=8)
    assert paired_difference(BEFORE, twice).value == pytest.approx((3 / 8 - 0 + 2 / 8 - 2 / 4 + 2 / 8 - 4 / 4 + 1 / 8 - 1 / 4) / 4)


@pytest.mark.parametrize(
    "other",
    [replace(AFTER, prompts_sha256="other"), of_results(*AFTER.results[:3]), of_results(*reversed(AFTER.results))],
)
def test_other_problems_cannot_be_compared(other: object) -> None:
    for compare in (paired_difference, gained_and_lost):
        with pytest.raises(PromptError, match="judged different problems") as caught:
            compare(BEFORE, other)  # type: ignore[arg-type, operator]
        assert caught.value.do
