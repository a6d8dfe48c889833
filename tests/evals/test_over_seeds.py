"""Means over seeds and problems: against intervals worked out by hand, paired, and wider than over problems alone where seeds differ."""

from __future__ import annotations

import numpy as np
import pytest

from selftrain.evals import resample
from selftrain.evals.bootstrap import mean_interval


def test_the_value_is_the_mean_over_seeds_of_the_mean_over_problems() -> None:
    found = resample({"a": [[1.0, 0.0], [1.0, 1.0, 1.0, 1.0]]}, same_problems=False)["a"]
    assert found.value == pytest.approx(0.75)
    assert found.resampled.mean() == pytest.approx(0.75, abs=0.01)


def test_one_seed_is_the_bootstrap_over_problems() -> None:
    values = [float(i % 3 == 0) for i in range(60)]
    both = [resample({"a": [values]}, same_problems=same)["a"].interval for same in (False, True)]
    alone = mean_interval(values)
    for found in both:
        assert (found.low, found.high) == pytest.approx((alone.low, alone.high), abs=0.02)


def test_seeds_that_differ_widen_the_interval() -> None:
    """Three seeds without any spread between problems: 1 of 27 resamples is the lowest seed alone, so the interval reaches it."""
    found = resample({"a": [[0.1] * 50, [0.3] * 50, [0.5] * 50]}, same_problems=False)["a"].interval
    assert (found.value, found.low, found.high) == pytest.approx((0.3, 0.1, 0.5))


def test_the_same_problems_for_all_seeds_do_not_count_as_more_of_them() -> None:
    values = [float(i % 2) for i in range(40)]
    crossed = resample({"a": [values] * 5}, same_problems=True)["a"].interval
    nested = resample({"a": [values] * 5}, same_problems=False)["a"].interval
    assert crossed.high - crossed.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), rel=0.1)
    assert nested.high - nested.low == pytest.approx((crossed.high - crossed.low) / np.sqrt(5), rel=0.1)


def test_differences_and_shares_are_paired() -> None:
    """Half of every seed's and problem's gain: spread as the whole is, its share is exactly one half."""
    whole = [[0.2 + 0.6 * (i % 4 == seed) for i in range(30)] for seed in range(4)]
    found = resample({"whole": whole, "half": [[value / 2 for value in row] for row in whole]}, same_problems=False)
    share = found["half"].share_of(found["whole"])
    assert share is not None
    assert (share.value, share.low, share.high) == pytest.approx((0.5, 0.5, 0.5))
    rest = found["whole"].minus(found["half"])
    assert rest.resampled == pytest.approx(found["half"].resampled)


def test_a_share_of_no_gain_is_no_number() -> None:
    found = resample({"whole": [[-1.0, 1.0, 0.5, -0.5]], "part": [[1.0, 1.0, 1.0, 1.0]]}, same_problems=False)
    assert found["part"].share_of(found["whole"]) is None


def test_nothing_has_no_mean() -> None:
    for empty in ({}, {"a": []}):
        with pytest.raises(ValueError, match="nothing"):
            resample(empty, same_problems=False)
