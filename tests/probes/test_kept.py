"""What is kept of the start's answers: on distributions that are known, and on toy policies that learned, collapsed or forgot."""

from __future__ import annotations

import math

import numpy as np
import pytest

from selftrain.policies.toy import STYLES
from selftrain.probes.kept import SCORED, Agreeing, Fallen, agreeing, bounded_ratio, fallen, kept_share, log_ratios, lost
from selftrain.probes.probe_set import Kind
from selftrain.types import AnswerKey
from tests.probes.test_signals import probed, start, voted

START, POLICY = {"right": 0.6, "wrong": 0.3, "other": 0.1}, {"right": 0.5, "wrong": 0.35, "other": 0.15}
RATIO = math.log(POLICY["right"] / START["right"])


def test_without_a_change_all_completions_weigh_the_same() -> None:
    assert kept_share(Agreeing([0.0, 0.0], 4), Agreeing([0.0], 2)) == pytest.approx(3 / 6)


def test_a_policy_near_its_start_is_seen_sharper_than_by_its_own_completions() -> None:
    """From .6 to .5, eight completions of the start and two of the policy a prompt: no bias, and a quarter of the variance of the two alone."""
    random = np.random.Generator(np.random.Philox(key=7))
    pairs = zip(random.binomial(8, START["right"], 4000), random.binomial(2, POLICY["right"], 4000), strict=True)
    found = np.array([kept_share(Agreeing([RATIO] * then, 8), Agreeing([RATIO] * now, 2)) for then, now in pairs])
    assert found.mean() == pytest.approx(0.5, abs=0.01)
    assert found.var() < 0.25 * 0.5 * 0.5 / 2


def test_far_from_the_start_its_own_completions_count() -> None:
    """Nothing that the start said is probable any more: what the policy's own two completions answer is the share, in whatever way they come to it."""
    gone = Agreeing([-40.0] * 8, 8)
    assert kept_share(gone, Agreeing([40.0], 2)) == pytest.approx(0.5)
    assert kept_share(gone, Agreeing([], 2)) == pytest.approx(0.0, abs=1e-9)
    assert kept_share(Agreeing([], 8), Agreeing([40.0, 50.0], 2)) == pytest.approx(1.0)


def test_of_the_starts_completions_those_that_agree_are_kept() -> None:
    one = voted(Kind.BASE, "a", ["5", "4", None, "5"])
    assert agreeing(one, AnswerKey("5")).completions == (one.group.completions[0], one.group.completions[3])
    many = voted(Kind.BASE, "a", ["4", *["5"] * 7])
    assert agreeing(many, AnswerKey("5")).completions == many.group.completions[1 : 1 + SCORED]


def test_a_part_of_those_that_agree_stands_for_all() -> None:
    """6 of 8 agree and 4 of the 6 are looked at: as if 8 * 4 / 6 had been drawn."""
    assert kept_share(Agreeing([0.0] * 4, 8 * 4 / 6), Agreeing([], 1)) == pytest.approx(4 / (16 / 3 + 1))
    assert kept_share(Agreeing([0.0] * 4, 8 * 4 / 6), Agreeing([], 1e-9)) == pytest.approx(6 / 8)


def test_what_has_fallen_is_paired_and_has_an_error() -> None:
    before = {str(i): 0.5 + 0.1 * i for i in range(8)}
    assert fallen(before, {of: ratio - 0.2 for of, ratio in before.items()}) == Fallen(pytest.approx(0.2), pytest.approx(0.0))
    one = fallen(before, {**before, "0": before["0"] - 0.8, "new": 3.0})
    assert one == Fallen(pytest.approx(0.1), pytest.approx(0.1)), "what fell at one prompt of eight is one standard error"
    assert fallen(before, dict(list(before.items())[:7])) is None
    assert fallen({}, before) is None


def test_a_ratio_counts_at_most_three_times() -> None:
    assert [bounded_ratio(value) for value in (-50.0, math.log(2), 1.2, 50.0)] == [pytest.approx(0, abs=1e-20), pytest.approx(2), 3, 3]


def test_ratios_are_of_whole_completions_and_bounded() -> None:
    assert log_ratios([(-1.0, -2.0), (-500.0,)], [(-1.5, -2.5), (-1.0,)]) == [1.0, -50.0]


def test_what_is_lost_is_paired_over_prompts() -> None:
    best = {str(i): 0.1 * i for i in range(9)}
    now = {of: share - 0.05 for of, share in best.items()}
    loss = lost(best, now)
    assert loss is not None
    assert (loss.value, loss.low) == (pytest.approx(0.05), pytest.approx(0.05)), "the same loss everywhere is sure, whatever the shares"
    one = lost(best, {**best, "8": best["8"] - 0.45})
    assert one is not None
    assert one.value == pytest.approx(0.05)
    assert one.low == 0, "a loss at one prompt is not"
    assert lost(best, dict(list(now.items())[:7])) is None


def test_what_probes_say_is_kept() -> None:
    """All that the start said at first; less once nothing of it is answered, and surely so."""
    better, constant = start(), start()
    better[:2] = 6.0, 0.0
    constant[2 + len(STYLES) + 5] = 12.0
    first = probed(start())
    assert first.values["probe/base_lost_frac"] == first.values["probe/base_lost_low_frac"] == 0
    assert probed(better, best=first.kept).values["probe/base_lost_low_frac"] < 0
    harmed = probed(constant, best=first.kept).values
    assert harmed["probe/base_lost_frac"] == pytest.approx(first.values["probe/base_kept_frac"] - harmed["probe/base_kept_frac"])
    assert harmed["probe/base_lost_low_frac"] > 0.03
