"""Metrics of a step by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selftrain.guard.rules import RULES
from selftrain.guard.signals import SIGNS
from selftrain.labels import Bounds
from selftrain.labels.composed import first_decided
from selftrain.labels.majority import majority
from selftrain.labels.reference import Reference
from selftrain.metrics import METRICS, length_correlation, measure, repeat_frac, with_update
from selftrain.policies.base import UpdateStats
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, PolicyVersion
from tests.builders import voted
from tests.test_stages import SCORER


def test_a_step_by_hand() -> None:
    """Three groups of four: a clear winner with one unread, a unanimous one with the same winner, a tie."""
    groups = [voted(["7", "7", None, "8"], "a", 0), voted(["7", "7", "7", "7"], "b", 1), voted(["1", "2", "1", "2"], "c", 2)]
    scored = SCORER.score(groups, majority(groups, Bounds()), (), Stream(0))
    stats = [UpdateStats(1.0, 2.0, 0.1, 1.0, 1.5, 0.0, 0.01, 0.0, 10), UpdateStats(3.0, 4.0, 0.1, 1.2, 1.7, 0.5, 0.09, 0.0, 6)]
    before = measure(3, PolicyVersion(0, 3), scored)
    assert not any(key.startswith("update/") for key in before.values)
    assert with_update(before, PolicyVersion(0, 3), ()).values == {**before.values, "update/num_updates": 0.0}
    step = with_update(before, PolicyVersion(0, 5), stats)
    assert (step.step, step.version) == (3, PolicyVersion(0, 5))
    values = step.values
    expected = {
        "vote/share_mean_frac": (0.5 + 1 + 0.5) / 3,
        "vote/margin_mean_frac": (0.25 + 1 + 0) / 3,
        "vote/read_mean_frac": 11 / 12,
        "vote/tie_frac": 1 / 3,
        "vote/collision_frac": 1.0,
        "vote/split_half_frac": 1 / 3,
        "label/decided_frac": 2 / 3,
        "reward/mean_frac": 6 / 8,
        "admission/admitted_frac": 1 / 3,
        "admission/no_signal_frac": 1 / 3,
        "completion/length_mean_tokens": 2.0,
        "completion/truncated_frac": 0.0,
        "policy/entropy_mean_nats": 0.7,
        "policy/logprob_mean_nats": -0.5,
        "update/loss": 2.0,
        "update/grad_norm": 3.0,
        "update/ratio_max": 1.7,
        "update/clip_frac": 0.25,
        "update/logprob_gap_nats": 0.01,
        "update/num_tokens": 16.0,
        "update/num_updates": 2.0,
    }
    assert {key: values[key] for key in expected} == pytest.approx(expected)
    assert 0 < values["completion/compress_ratio"] < 1
    assert values["completion/repeat_frac"] == 0.0
    assert "reward/length_corr" not in values  # all completions have two tokens


def test_repeated_tokens_are_counted_in_fours() -> None:
    assert repeat_frac([1, 2, 3]) == 0.0
    assert repeat_frac([1, 2, 3, 4, 5]) == 0.0
    assert repeat_frac([7] * 10) == pytest.approx(6 / 7)
    assert repeat_frac(["a", "b", "c", "d", "a", "b", "c", "d"]) == pytest.approx(1 / 5)


def test_reward_and_length_are_correlated_within_a_group() -> None:
    one = SCORER.score([voted(["7", "7", "8", "9"], "a", 0)], majority([voted(["7", "7", "8", "9"], "a", 0)], Bounds()), (), Stream(0))[0]
    assert length_correlation(one) is None
    group = one.voted.group
    longer = [replace(completion, token_ids=(1,) * size) for completion, size in zip(group.completions, (1, 2, 3, 4), strict=True)]
    varied = replace(one, voted=replace(one.voted, group=replace(group, completions=tuple(longer))))
    assert length_correlation(varied) == pytest.approx(-2 / 5**0.5)


def test_names_say_stage_quantity_and_unit() -> None:
    for key, metric in METRICS.items():
        stage, slash, quantity = key.partition("/")
        assert stage in {"vote", "label", "correction", "reward", "admission", "completion", "policy", "cost", "probe", "glance", "support", "update"}
        assert slash
        assert quantity
        assert metric.formula
        for suffix, unit in (("_nats", "nats"), ("_tokens", "tokens")):
            assert (metric.unit == unit) == key.endswith(suffix)


def test_every_signal_of_a_rule_says_which_way_it_goes_and_what_it_catches() -> None:
    assert set(SIGNS) <= set(METRICS)
    assert {signal for rule in RULES.values() for signal in rule.signals} <= set(SIGNS)
    assert all(goes and catches for goes, catches in SIGNS.values())


def test_what_is_right_by_the_truth_is_known_where_the_truth_labels() -> None:
    """Four groups with a true answer, right in 3, 0, 2 and 4 of 4 completions, and one that its vote labels; three are too few."""
    answers = [["7", "7", "7", "8"], ["8", "8", None, "8"], ["7", "7", "8", "9"], ["7"] * 4, ["8", "8", "8", "9"]]
    groups = [voted(one, str(index), index) for index, one in enumerate(answers)]
    by_truth = Reference(AnswerSheet({str(index): "7" for index in range(4)}))(groups, Bounds())
    labels = [first_decided(both) for both in zip(by_truth, majority(groups, Bounds()), strict=True)]
    assert [label.source for label in labels] == ["reference"] * 4 + ["majority"]
    scored = SCORER.score(groups, labels, (), Stream(0))
    assert measure(0, PolicyVersion(0, 0), scored).values["label/truth_right_frac"] == (0.75 + 0 + 0.5 + 1) / 4
    for few in (scored[1:], SCORER.score(groups, majority(groups, Bounds()), (), Stream(0))):
        assert "label/truth_right_frac" not in measure(0, PolicyVersion(0, 0), few).values
