"""Restrained, novelty-split and flip-damped votes: by hand, and as properties."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.advantage import dr_grpo, rloo
from selftrain.answers import key
from selftrain.control import ask
from selftrain.events import Taken
from selftrain.labels import Bounds
from selftrain.labels.flip_damped import FlipDamped
from selftrain.labels.novelty import Novelty, gram_sets, overlap, ranks
from selftrain.labels.restrained import Restrained, soft_weights
from selftrain.ledger import read
from selftrain.replay import replay
from selftrain.reward import match
from selftrain.rollout import read_and_count
from selftrain.run import read_config, start
from selftrain.scoring import Scorer
from selftrain.seeds import Stream
from selftrain.train import StepReport
from selftrain.types import Admission, Group, Outcome, Role, VotedGroup
from tests.builders import completion, group, voted
from tests.test_train import SMALL, config

SOFT = Restrained(sigma=0.5, min_share=0.0, penalty=0.5, prompt_sigma=None)
answers_of_a_group = st.lists(st.sampled_from(["1", "2", "3", None]), min_size=2, max_size=12)


def of_texts(texts: Sequence[str]) -> VotedGroup:
    return read_and_count(Group(0, 0, group(["1"]).prompt, (1,), tuple(completion(text) for text in texts)))


def test_restrained_by_hand() -> None:
    """Shares 1/2 and 1/4: g = exp(-0.5) and exp(-1.125)."""
    high, low = math.exp(-0.5), math.exp(-1.125)
    label = SOFT([voted(["1", "1", "2", None])], Bounds())[0]
    assert label.values == pytest.approx((high / (high + low), high / (high + low), low / (high + low), 0.0))
    assert label.values[0] == pytest.approx(0.651, abs=1e-3)
    assert label.notes == ("match", "match", "mismatch", "unread")
    assert (label.key, label.weight, label.offset, label.decided_by) == (key("1"), 1.0, 0.0, "vote 0:3")


@pytest.mark.parametrize("sigma", [0.001, 0.02])
def test_restrained_with_a_narrow_sigma_is_the_winner_alone(sigma: float) -> None:
    """At these shares g is 0 as a number: exp(-800) for 1/5 at 0.02, exp(-180000) for 2/5 at 0.001."""
    winner, tie = Restrained(sigma, 0.2, 0.5, None)([voted(["1", "1", "2", "3", "4"]), voted(["1", "2", "3", "4", "5"])], Bounds())
    assert winner.values == pytest.approx((1.0, 1.0, 0.0, 0.0, 0.0))
    assert tie.values == pytest.approx((0.2,) * 5)


def test_restrained_punishes_a_group_without_support() -> None:
    label = Restrained(0.5, 0.4, 0.5, None)([voted(["1", "2", "3", "3", None, "4"])], Bounds())[0]
    assert (label.outcome, label.key, label.offset) == (Outcome.DECIDED, None, -0.5)
    assert label.values == (0.0,) * 6
    assert label.notes == (*["below_min_share"] * 4, "unread", "below_min_share")
    scored = Scorer(match, rloo, 6, None, "k1").score([voted(["1", "2", "3", "3", None, "4"])], [label], (), Stream(0))[0]
    assert (scored.admission, scored.advantages) == (Admission.ADMITTED, (-0.5,) * 6)


def test_restrained_decides_a_tie_and_leaves_too_few_answers_undecided() -> None:
    tie, few, none = SOFT([voted(["1", "2"]), voted(["1", None, None, None]), voted([None, None])], Bounds(min_read_frac=0.5))
    assert (tie.outcome, tie.values, tie.key) == (Outcome.DECIDED, (0.5, 0.5), None)
    assert (few.outcome, none.outcome, few.values) == (Outcome.BELOW_QUORUM, Outcome.NO_ANSWER, ())


def test_restrained_leaves_a_tie_below_the_least_share_undecided() -> None:
    below, enough = SOFT([voted(["1", "1", "2", "2", "3", "3"]), voted(["1", "1", "2", "2"])], Bounds(min_share_frac=0.5))
    assert (below.outcome, below.values) == (Outcome.BELOW_MIN_SHARE, ())
    assert (enough.outcome, enough.values) == (Outcome.DECIDED, (0.5,) * 4)


def test_restrained_weighs_a_prompt_by_the_starts_share() -> None:
    source = Restrained(0.5, 0.0, 0.5, prompt_sigma=0.25)
    one = voted(["1", "1", "2", "2"])
    (request,) = source.requests([one], Bounds())
    assert (request.serves, request.role, request.count, request.policy) == (0, Role.TEACHER, 4, "base")
    teacher = voted(["1", "1", "1", "2"])
    served = replace(one, group=replace(one.group, extras=(replace(teacher, group=replace(teacher.group, role=Role.TEACHER)),)))
    assert source.requests([served], Bounds()) == []
    assert source([served], Bounds())[0].weight == pytest.approx(math.exp(-(0.25**2) / (2 * 0.25**2)))
    assert SOFT.requests([one], Bounds()) == []


@given(answers_of_a_group, st.floats(0.05, 5))
def test_soft_weights_add_up_and_grow_with_the_share(answers: list[str | None], sigma: float) -> None:
    one = voted(answers)
    if one.vote.counts:
        weights = soft_weights(one.vote, sigma)
        assert math.fsum(weights.values()) == pytest.approx(1)
        assert list(weights.values()) == sorted(weights.values(), reverse=True)


@given(answers_of_a_group)
def test_the_summed_rewards_have_the_papers_summed_advantages(answers: list[str | None]) -> None:
    """sum over answers b of w(b) * A(1[a_i = b]) = A(w(a_i)), for advantages that are linear in the rewards."""
    one = voted(answers)
    label = SOFT([one], Bounds())[0]
    if not label.is_decided:
        return
    weights = soft_weights(one.vote, 0.5)
    for rule in (rloo, dr_grpo):
        parts = [[weight * value for value in rule([float(found == answer) for found in one.answers.keys])] for answer, weight in weights.items()]
        assert rule(label.values) == pytest.approx([math.fsum(column) for column in zip(*parts, strict=True)], abs=1e-9)


def test_grams_and_ranks() -> None:
    abc, abd, short = gram_sets(["abcd", "abcx", "ab"], 3)
    assert (abc.bit_count(), abd.bit_count(), short.bit_count()) == (2, 2, 1)
    assert (overlap(abc, abd), overlap(abc, abc), overlap(abc, short)) == (1 / 3, 1.0, 0.0)
    assert gram_sets([""], 3) == [1]
    assert ranks([3.0, 1.0, 2.0]) == [1.0, 0.0, 0.5]
    assert ranks([1.0, 1.0, 5.0]) == [0.25, 0.25, 1.0]
    assert ranks([7.0]) == [0.5]


def test_novelty_by_hand() -> None:
    """The majority: two equal texts and one of other words. The others: one that repeats the majority's words, one that does not."""
    one = of_texts(["so we add #### 1", "so we add #### 1", "counting up gives #### 1", "so we add #### 2", "by guess #### 3", "hm"])
    label = Novelty(3, 0.5)([one], Bounds())[0]
    assert label.values == (0.625, 0.625, 1.0, -1.0, -0.5, -1.0)
    assert label.notes == ("match", "match", "match", "mismatch", "mismatch", "unread")
    assert (label.key, label.source) == (key("1"), "novelty")
    alone = Novelty(3, 0.5)([of_texts(["a #### 1", "b #### 1", "c #### 2"])], Bounds())[0]
    assert alone.values[2] == -0.75


def test_a_unanimous_group_of_equal_texts_gives_no_signal() -> None:
    label = Novelty(3, 0.5)([voted(["1", "1", "1"])], Bounds())[0]
    assert label.values == (0.75,) * 3
    tie = Novelty(3, 0.5)([voted(["1", "2"])], Bounds())[0]
    assert (tie.outcome, tie.values, tie.source) == (Outcome.TIE, (), "novelty")


@given(st.permutations(["a b #### 1", "a c #### 1", "zz #### 1", "a b #### 2", "q #### 3", "hm"]))
def test_the_order_of_the_group_does_not_matter(texts: list[str]) -> None:
    for source in (Novelty(2, 0.5), SOFT):
        values = dict(zip(texts, source([of_texts(texts)], Bounds())[0].values, strict=True))
        assert values == dict(zip(sorted(texts), source([of_texts(sorted(texts))], Bounds())[0].values, strict=True))


@given(answers_of_a_group)
def test_novelty_keeps_the_sides_apart(answers: list[str | None]) -> None:
    label = Novelty(3, 0.5)([voted(answers)], Bounds())[0]
    for value, note in zip(label.values, label.notes, strict=True):
        assert {"match": 0.5 <= value <= 1, "mismatch": -1 <= value <= -0.5, "unread": value == -1}[note]


def damped(source: FlipDamped, *answers: str | None) -> list[float]:
    """The weights of visits to one prompt, in which all completions give one answer."""
    return [source([voted([answer, answer])], Bounds())[0].weight for answer in answers]


def test_flip_damping_by_hand() -> None:
    assert damped(FlipDamped(), "5", "5", "7", "5") == [1.0, 1.0, 0.5, pytest.approx(1 / 3)]
    assert damped(FlipDamped(), "5", "7", "5") == [1.0, 0.0, 0.0]
    assert damped(FlipDamped(), "5", None, "5") == [1.0, 1.0, 1.0]


@given(st.lists(st.sampled_from(["1", "2", None]), max_size=12), st.integers(0, 12))
def test_memory_that_was_kept_goes_on_as_if_nothing_had_happened(answers: list[str | None], cut: int) -> None:
    first, second = FlipDamped(), FlipDamped()
    before = damped(first, *answers[:cut])
    second.load(first.state())
    assert before + damped(second, *answers[cut:]) == damped(FlipDamped(), *answers)
    second.load({})
    assert second.state() == FlipDamped().state()


def test_after_a_rollback_the_weights_go_on_from_the_checkpoint(tmp_path: Path) -> None:
    """The weights of the new branch follow from the labels of its own history, and replay finds the same."""
    options = {**SMALL, "policy.model": "toy:weak", "labels.source": "flip_damped", "prompts.count": 32, "rollout.num_votes": 4}
    run = start(config(tmp_path, "a", {**options, "run.num_steps": 9, "run.checkpoint_every_steps": 2}))
    asked = 0
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step in (3, 7) and asked < 2:
            asked += 1
            ask(run.folder, "roll_back", "a test", "to see it", "step-000002" if asked == 1 else "branch-01-step-000002")
        assert not (isinstance(event, Taken) and event.request.refused)
    ledger = read(run.folder)
    assert [(one.branch, one.parent, one.step) for one in ledger.branches] == [(1, 0, 2), (2, 1, 2)]
    seen: dict[str, list[str]] = {}
    weights = Counter[bool]()
    for step in ledger.group_steps():
        for one in ledger.groups(step):
            if one.label.key is None:
                continue
            labels = seen.setdefault(one.voted.group.prompt.id, [])
            labels.append(one.label.key)
            flips = sum(a != b for a, b in pairwise(labels))
            assert one.label.weight == pytest.approx(1 - flips / max(1, len(labels) - 1))
            weights[one.label.weight < 1] += 1
    assert weights[True] > 10
    assert weights[False] > 10
    found = replay(ledger, read_config(run.folder))
    assert found.agrees, found.groups.mismatches
