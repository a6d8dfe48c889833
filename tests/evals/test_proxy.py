"""How trustworthy a vote is against the truth: every measure worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selftrain.answers import key
from selftrain.evals.proxy import JudgedVote, auc, auc_interval, calibration_bins, judged_by_answer, judged_by_checks, maj_at, proxy_quality
from selftrain.types import AnswerSheet, Check
from tests.builders import voted


def judged(*answers: str | None, truth: str = "1") -> JudgedVote:
    found = judged_by_answer(voted(answers), AnswerSheet({"p0": truth}))
    assert found is not None
    return found


def test_votes_are_judged_by_keys_or_by_checks() -> None:
    one = judged("1", "1.0", "2", None)
    assert (one.right, one.right_keys, one.share_frac, one.winner_is_right) == ((True, True, False, False), {key("1")}, 0.5, True)
    assert judged("1", "2").winner_is_right is None
    assert judged(None, None).winner_is_right is None
    assert judged_by_answer(voted(["1"], "p9"), AnswerSheet({"p0": "1"})) is None
    checks = (Check(1.0, "verified"), Check(0.0, "refuted"), Check(1.0, "verified"), Check(None, "crashed"))
    by_program = judged_by_checks(replace(voted(["1", "1", "2", "2"]), checks=checks))
    assert by_program is not None
    assert (by_program.right, by_program.right_keys) == ((True, False, True, False), frozenset())
    assert judged_by_checks(voted(["1"])) is None


@pytest.mark.parametrize(
    ("scores", "flags", "expected"),
    [
        ([0.9, 0.8, 0.7, 0.6], [True, False, True, False], 0.75),
        ([0.9, 0.8, 0.2, 0.1], [True, True, False, False], 1.0),
        ([0.1, 0.9], [True, False], 0.0),
        ([0.5, 0.5, 0.5], [True, False, False], 0.5),
        ([0.5, 0.4], [True, True], None),
        ([], [], None),
    ],
)
def test_auc_by_hand(scores: list[float], flags: list[bool], expected: float | None) -> None:
    assert auc(scores, flags) == expected
    found = auc_interval(scores, flags)
    assert (None if found is None else found.value) == expected


def test_the_interval_of_an_auc_narrows_with_the_prompts() -> None:
    few, many = (auc_interval([0.9, 0.8, 0.7, 0.6] * times, [True, False, True, False] * times) for times in (3, 50))
    assert few is not None
    assert many is not None
    assert few.low < many.low < 0.75 < many.high < few.high
    assert many == auc_interval([0.9, 0.8, 0.7, 0.6] * 50, [True, False, True, False] * 50)


def test_maj_of_parts_of_the_votes() -> None:
    """Votes 1 2 | 1 1 | 2 2 | 1 1: in pairs a tie, right, wrong, right; in fours right (3 of 4) and a tie."""
    one = judged("1", "2", "1", "1", "2", "2", "1", "1")
    assert [maj_at(one, size) for size in (1, 2, 4, 8)] == [5 / 8, (0.5 + 1 + 0 + 1) / 4, (1 + 0.5) / 2, 1.0]
    assert maj_at(judged(None, None), 2) == 0.0


def test_the_whole_table_by_hand() -> None:
    """Shares and winners: 1 right, 3/4 right, 3/4 wrong, 1/2 right, and a tie."""
    votes = [judged(*["1"] * 4), judged("1", "1", "1", "2"), judged("2", "2", "2", "1"), judged("1", "1", "2", "3"), judged("1", "1", "2", "2")]
    found = proxy_quality(votes)
    assert (found.num_prompts, found.num_votes) == (5, 4)
    assert (found.avg.value, found.any_right.value, found.maj.value) == pytest.approx(((1 + 0.75 + 0.25 + 0.5 + 0.5) / 5, 1.0, 3.5 / 5))
    assert [size for size, _ in found.maj_by_votes] == [1, 2, 4]
    assert found.maj_by_votes[0][1].value == pytest.approx(found.avg.value)
    assert found.auc is not None
    assert found.auc.value == pytest.approx((1 + 0.5 + 0) / 3)
    assert [(one.low, one.num_prompts, one.share_mean_frac, one.accuracy.value) for one in found.bins] == [
        (0.4, 1, 0.5, 1.0),
        (0.6, 2, 0.75, 0.5),
        (0.8, 1, 1.0, 1.0),
    ]
    assert found.calibration_error_frac == pytest.approx((0.5 + 2 * 0.25 + 0) / 4)
    at = {one.min_share_frac: (one.decided_frac, one.accuracy and one.accuracy.value) for one in found.thresholds}
    assert (at[0.0], at[0.625], at[0.9]) == ((0.8, 0.75), (0.6, pytest.approx(2 / 3)), (0.2, 1.0))


def test_votes_that_never_decide() -> None:
    found = proxy_quality([judged(None, None), judged("1", "2")])
    assert (found.auc, found.bins, found.calibration_error_frac, {one.accuracy for one in found.thresholds}) == (None, (), None, {None})


def test_a_share_on_an_edge_belongs_to_the_bin_above_it_and_1_to_the_last() -> None:
    assert [(one.low, one.num_prompts) for one in calibration_bins([(0.2, True), (0.8, True), (1.0, False)])] == [(0.2, 1), (0.8, 2)]
