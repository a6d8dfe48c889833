"""The controls: what they reward, and that they look at nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.compose_labels import check_reward_rule
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.labels import Bounds
from selftrain.labels.controls import Random, format_only, inverted
from selftrain.reward import match, rewards_of
from selftrain.rollout import read_and_count
from selftrain.seeds import Stream
from selftrain.types import Finish, Group, Label, Outcome, Rewards, VotedGroup
from tests.builders import completion, group, voted


def rewards(one: VotedGroup, label: Label) -> Rewards:
    return rewards_of(one, label, match)


def cut_off(answers: list[str]) -> VotedGroup:
    """The last completion was truncated."""
    finishes = [*[Finish.STOP] * (len(answers) - 1), Finish.LENGTH]
    done = tuple(completion(f"#### {answer}", finish) for answer, finish in zip(answers, finishes, strict=True))
    return read_and_count(Group(0, 0, group(["1"]).prompt, (1,), done))


def test_format_only_rewards_every_readable_answer() -> None:
    one = cut_off(["1", "2", "2"])
    label = format_only([one], Bounds())[0]
    assert rewards(one, label) == Rewards((1.0, 1.0, 0.0), ("readable", "readable", "truncated"))
    one = voted(["1", None])
    label = format_only([one], Bounds(min_read_frac=1.0))[0]
    assert rewards(one, label) == Rewards((1.0, 0.0), ("readable", "unread"))
    assert (label.key, label.source, label.decided_by, label.uses_truth) == (None, "format_only", "format", False)


def test_inverted_rewards_every_readable_answer_but_the_majority() -> None:
    one = voted(["1", "1", "1.0", "2", "3", None])
    label = inverted([one], Bounds())[0]
    assert rewards(one, label) == Rewards((0.0, 0.0, 0.0, 1.0, 1.0, 0.0), ("match", "match", "match", "mismatch", "mismatch", "unread"))
    assert (label.key, label.source, label.decided_by) == (None, "inverted", "vote 0:3")


def test_inverted_is_undecided_where_the_majority_is() -> None:
    tie, few = inverted([voted(["1", "2"]), voted(["1", None, None, None])], Bounds(min_read_frac=0.5))
    assert (tie.outcome, tie.source, few.outcome) == (Outcome.TIE, "inverted", Outcome.BELOW_QUORUM)
    assert rewards(voted(["1", "2"]), tie) == Rewards((), ())


def test_random_looks_at_nothing() -> None:
    """The same draws whatever was written, unreadable or not; others for another prompt and another seed."""
    source = Random(Stream(3))
    (first,), (second,) = (source([voted(answers)], Bounds()) for answers in (["1", "2", None] * 20, [None] * 60))
    assert first.values == second.values
    assert set(first.values) == {0.0, 1.0}
    assert first.notes == tuple(f"drawn_{int(value)}" for value in first.values)
    other = source([voted(["1", "2", None] * 20, "p1")], Bounds())[0]
    again = Random(Stream(4))([voted(["1", "2", None] * 20)], Bounds())[0]
    assert len({first.values, other.values, again.values}) == 3
    assert first.values[:10] == source([voted(["1"] * 10)], Bounds())[0].values


def test_random_rewards_half() -> None:
    labels = Random(Stream(0))([voted(["1"] * 16, f"p{index}") for index in range(64)], Bounds())
    drawn = [value for label in labels for value in label.values]
    assert sum(drawn) / len(drawn) == pytest.approx(0.5, abs=0.05)


@given(st.permutations(["1", "1", "1", "2", "3", None]))
def test_the_order_of_the_group_does_not_matter(answers: list[str | None]) -> None:
    one = voted(answers)
    for source in (format_only, inverted):
        values = source([one], Bounds())[0].values
        assert all(a == b for i, a in enumerate(values) for j, b in enumerate(values) if answers[i] == answers[j])
        assert sum(values) == {format_only: 5, inverted: 2}[source]


@pytest.mark.parametrize(
    ("options", "given_as"),
    [
        *(({"labels.source": name}, f"labels.source = {name}, reward.rule = share") for name in ("random", "format_only", "inverted", "mixture")),
        ({"labels.source": "first_of", "first_of.sources": ["verifier", "novelty"]}, "first_of.sources = verifier, novelty, reward.rule = share"),
        ({"labels.source": "first_of", "first_of.sources": ["restrained", "mixture"]}, "first_of.sources = restrained, mixture, reward.rule = share"),
    ],
)
def test_a_reward_rule_that_would_never_be_asked_is_refused(options: Mapping[str, Any], given_as: str) -> None:
    config = load_config(overrides={"policy.model": "toy", **options, "reward.rule": "share"})
    with pytest.raises(ConfigError, match="gives the rewards itself, so the rule would do nothing") as caught:
        check_reward_rule(config)
    assert caught.value.given == given_as


@pytest.mark.parametrize("source", ["split_vote", "frozen", "ema", "second_view", "views", "reference"])
def test_the_rule_share_is_refused_where_it_would_never_look_at_the_label(source: str) -> None:
    for options in ({"labels.source": source}, {"labels.source": "first_of", "first_of.sources": ["gate", source]}):
        config = load_config(overrides={"policy.model": "toy", **options, "reward.rule": "share"})
        with pytest.raises(ConfigError, match="whatever the label is") as caught:
            check_reward_rule(config)
        assert f"= {source}, reward.rule = share" in caught.value.given


@pytest.mark.parametrize("options", [{"labels.source": "gate"}, {"labels.source": "flip_damped"}, {"first_of.sources": ["novelty", "majority"]}])
def test_the_rule_share_goes_with_the_groups_own_vote(options: Mapping[str, Any]) -> None:
    whole = {"labels.source": "first_of", **options}
    check_reward_rule(load_config(overrides={"policy.model": "toy", **whole, "reward.rule": "share"}))
