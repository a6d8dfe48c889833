"""Intervals: by hand where possible, by simulation where not."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from selftrain.evals.bootstrap import NUM_RESAMPLES, Interval, _draws, _kept_draws, mean_interval, ratio_interval, resampled_sums


def test_two_problems_by_hand() -> None:
    """Resamples of (0, 1) have means 0, 0.5 and 1 with chances 1/4, 1/2 and 1/4: the 2.5 % percentiles are 0 and 1."""
    assert mean_interval([0.0, 1.0]) == Interval(0.5, 0.0, 1.0)
    sums = resampled_sums(np.array([[0.0, 1.0]]))[0]
    assert sums.shape == (NUM_RESAMPLES,)
    assert [float((sums == total).mean()) for total in (0, 1, 2)] == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_all_resamples_of_three_problems() -> None:
    """Each of the 27 ordered resamples of three problems has the chance 1/27."""
    values = [0.0, 0.25, 1.0]
    drawn = resampled_sums(np.array([values]))[0]
    every = [sum(three) for three in product(values, repeat=3)]
    for total in set(every):
        assert (drawn == total).mean() == pytest.approx(every.count(total) / 27, abs=0.015)


def test_equal_values_have_no_width() -> None:
    assert mean_interval([0.5] * 7) == Interval(0.5, 0.5, 0.5)
    assert mean_interval([1.0]) == Interval(1.0, 1.0, 1.0)


def test_many_problems_agree_with_the_normal_interval() -> None:
    values = np.random.default_rng(0).random(400)
    error = values.std() / np.sqrt(400)
    found = mean_interval(list(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((values.mean() - 1.96 * error, values.mean() + 1.96 * error), abs=0.1 * error)


def test_coverage() -> None:
    """Of 300 samples of 60 problems solved with chance 0.7, about 95 % of the intervals hold 0.7."""
    random = np.random.default_rng(1)
    intervals = [mean_interval(list((random.random(60) < 0.7).astype(float))) for _ in range(300)]
    assert 0.91 < np.mean([one.low <= 0.7 <= one.high for one in intervals]) < 0.98


def test_deterministic_and_blockwise() -> None:
    """300 different values do not fit one block; the blocks go on in the same stream."""
    values = np.random.default_rng(2).random(300)
    assert mean_interval(list(values)) == mean_interval(list(values))
    assert resampled_sums(values[None]).shape == (1, NUM_RESAMPLES)
    assert resampled_sums(values[None]).std() == pytest.approx(values.std() * np.sqrt(300), rel=0.05)


def test_draws_that_are_kept_are_those_of_a_fresh_stream() -> None:
    """As many different values have the same draws, whatever was asked before; sums are those of draws that are not kept."""
    random = np.random.default_rng(4)
    first, second = random.random(40), random.random(40)
    mean_interval(list(first))
    kept = resampled_sums(second[None])
    _kept_draws.cache_clear()
    assert (resampled_sums(second[None]) == kept).all()
    assert (np.concatenate([np.sort(second) @ part.T for part in _draws((1,) * 40)]) == kept[0]).all()
    assert mean_interval([0.0, 0.0, 1.0]) != mean_interval([0.0, 1.0, 1.0])


def test_rows_are_drawn_together() -> None:
    values = np.random.default_rng(3).random(50)
    sums = resampled_sums(np.stack([values, 2 * values]))
    assert sums[1] == pytest.approx(2 * sums[0])


def test_ratio() -> None:
    """Two decided problems, one of them right, among four; resamples without a decided one are left out."""
    found = ratio_interval([1.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0])
    assert found == Interval(0.5, 0.0, 1.0)
    assert ratio_interval([1.0, 0.0], [1.0, 0.0]) == Interval(1.0, 1.0, 1.0)


def test_nothing_to_average() -> None:
    with pytest.raises(ValueError, match="nothing"):
        mean_interval([])
    with pytest.raises(ValueError, match="nothing"):
        ratio_interval([0.0], [0.0])


def test_words() -> None:
    assert str(Interval(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert Interval(0.1, 0.01, 0.2).excludes_zero
    assert Interval(-0.1, -0.2, -0.01).excludes_zero
    assert not Interval(0.1, 0.0, 0.2).excludes_zero
