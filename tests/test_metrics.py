"""Metrics of a step by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selftrain.labels import Bounds
from selftrain.labels.majority import majority
from selftrain.metrics import METRICS, length_correlation, measure, repeat_frac, with_update
from selftrain.policies.base import UpdateStats
from selftrain.seeds import Stream
from selftrain.types import PolicyVersion
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
        assert stage in {"vote", "label", "correction", "reward", "admission", "completion", "policy", "cost", "probe", "glance", "update"}
        assert slash
        assert quantity
        assert metric.formula
        for suffix, unit in (("_nats", "nats"), ("_tokens", "tokens")):
            assert (metric.unit == unit) == key.endswith(suffix)
