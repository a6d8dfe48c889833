"""Label sources, rewards, advantages, admission, samples: by hand, and as properties."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.admission import trained_subset
from selftrain.advantage import ADVANTAGE_RULES, dr_grpo, grpo, rloo, weighted
from selftrain.answers import key
from selftrain.answers.freeform import reader
from selftrain.labels import Bounds
from selftrain.labels.majority import majority
from selftrain.labels.reference import Reference
from selftrain.labels.split_vote import split_vote
from selftrain.reward import match, rewards_of, share
from selftrain.rollout import read_and_count
from selftrain.scoring import Scorer, compile_samples, minibatches
from selftrain.seeds import Stream
from selftrain.types import Admission, AnswerSheet, Finish, Group, Label, Outcome, ScoredGroup
from tests.builders import completion, group, voted

SCORER = Scorer(match, rloo, group_size=64, kl_coef=None, kl_estimator="k1")


def scored(answers: list[str | None], index: int = 0, scorer: Scorer = SCORER) -> ScoredGroup:
    one = voted(answers, f"p{index}", index)
    return scorer.score([one], majority([one], Bounds()), (), Stream(0))[0]


def test_majority_counts_equal_answers_as_one() -> None:
    label = majority([voted(["1/2", "0.5", "2", None])], Bounds())[0]
    assert (label.outcome, label.key, label.uses_truth, label.decided_by) == (Outcome.DECIDED, key("0.5"), False, "vote 0:3")


@pytest.mark.parametrize(
    ("answers", "bounds", "outcome"),
    [
        ([None, None], Bounds(), Outcome.NO_ANSWER),
        (["1", None, None, None], Bounds(min_read_frac=0.5), Outcome.BELOW_QUORUM),
        (["1", "2"], Bounds(), Outcome.TIE),
        (["1", "1", "2", None], Bounds(min_share_frac=0.6), Outcome.BELOW_MIN_SHARE),
        (["1", "1", "2", None], Bounds(min_read_frac=0.75, min_share_frac=0.5), Outcome.DECIDED),
    ],
)
def test_undecided_is_a_value_with_a_reason(answers: list[str | None], bounds: Bounds, outcome: Outcome) -> None:
    label = majority([voted(answers)], bounds)[0]
    assert label.outcome is outcome
    assert (label.key is None) == (outcome is not Outcome.DECIDED)


def test_split_vote_labels_each_half_by_the_other() -> None:
    label = split_vote([voted(["1", "2", "1", "2", "3", "2"])], Bounds())[0]
    assert label.outcome is Outcome.DECIDED
    assert label.targets == (key("2"), key("1")) * 3
    assert label.key is None


def test_split_vote_needs_both_halves() -> None:
    assert split_vote([voted(["1", None, "1", None])], Bounds())[0].outcome is Outcome.NO_ANSWER


def test_reference_says_that_truth_was_used() -> None:
    source = Reference(AnswerSheet({"p0": "0.50"}))
    known, unknown = source([voted(["1/2", "3"], "p0"), voted(["1", "1"], "p1")], Bounds())
    assert (known.key, known.uses_truth, known.decided_by) == (key("1/2"), True, "reference")
    assert (unknown.outcome, unknown.uses_truth) == (Outcome.NO_REFERENCE, False)


def test_rewards_and_their_reasons() -> None:
    cut = Group(
        0,
        0,
        group(["1"]).prompt,
        (1,),
        (completion("#### 1"), completion("#### 1"), completion("#### 2"), completion("hm"), completion("#### 1", Finish.LENGTH)),
    )
    one = read_and_count(cut)
    label = majority([one], Bounds())[0]
    assert rewards_of(one, label, match).values == (1.0, 1.0, 0.0, 0.0, 0.0)
    assert rewards_of(one, label, match).reasons == ("match", "match", "mismatch", "unread", "truncated")
    assert rewards_of(one, label, share).values == (0.4, 0.4, 0.2, 0.0, 0.0)


def test_a_truncated_completion_does_not_vote() -> None:
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), (completion("#### 1", Finish.LENGTH), completion("#### 2"))))
    assert one.answers.keys == (None, key("2"))


def test_free_form_answers_vote_in_clusters() -> None:
    """Two sentences that say the same in other words are one answer; the one with the opposite sense is not."""
    texts = ["The treatment lowers blood pressure.", "Treatment lowers the blood pressure", "The treatment does not lower blood pressure."]
    prompt = group(["1"]).prompt
    one = read_and_count(Group(0, 0, prompt, (1,), tuple(completion(text) for text in texts)), reader("overlap"))
    assert one.answers.keys[0] == one.answers.keys[1] != one.answers.keys[2]
    assert one.vote.share_frac == 2 / 3
    exact = read_and_count(Group(0, 0, prompt, (1,), tuple(completion(text) for text in texts)))
    assert exact.vote.num_read == 0


def test_an_undecided_group_has_no_rewards() -> None:
    one = scored(["1", "2"])
    assert (one.rewards.values, one.advantages, one.trained, one.admission) == ((), (), (), Admission.UNDECIDED)


def labelled(answers: list[str | None], **changes: Any) -> ScoredGroup:
    """A group whose majority label is changed before it is scored."""
    one = voted(answers)
    label: Label = replace(majority([one], Bounds())[0], **changes)
    return SCORER.score([one], [label], (), Stream(0))[0]


def test_a_label_weighs_and_shifts_the_advantages_of_its_group() -> None:
    assert labelled(["1", "1", "2"]).advantages == (0.5, 0.5, -1.0)
    assert labelled(["1", "1", "2"], weight=0.5).advantages == (0.25, 0.25, -0.5)
    assert labelled(["1", "1", "2"], weight=2.0, offset=-1.0).advantages == (-1.0, -1.0, -4.0)
    assert weighted((0.5, -0.5), 2.0, -1.0) == (-1.0, -3.0)


def test_an_offset_makes_equal_rewards_train_and_a_weight_of_0_lets_nothing_train() -> None:
    assert labelled(["1", "1"]).admission is Admission.NO_SIGNAL
    pushed = labelled(["1", "1"], offset=-0.5)
    assert (pushed.admission, pushed.advantages, pushed.trained) == (Admission.ADMITTED, (-0.5, -0.5), (0, 1))
    assert labelled(["1", "1", "2"], weight=0.0).admission is Admission.NO_SIGNAL
    assert labelled(["1", "1", "2"], weight=0.0, offset=1.0).trained == ()
    undecided = labelled(["1", "2"], weight=2.0, offset=-1.0)
    assert (undecided.admission, undecided.advantages) == (Admission.UNDECIDED, ())


def test_rewards_that_a_label_gives_are_the_rewards() -> None:
    one = labelled(["1", "1", "2"], values=(0.25, -1.0, 0.0), notes=("a", "b", "c"))
    assert (one.rewards.values, one.rewards.reasons) == ((0.25, -1.0, 0.0), ("a", "b", "c"))
    assert one.advantages == rloo((0.25, -1.0, 0.0))


def test_advantages_by_hand() -> None:
    assert rloo((1, 1, 0)) == pytest.approx((0.5, 0.5, -1))
    assert dr_grpo((1, 1, 0)) == pytest.approx((1 / 3, 1 / 3, -2 / 3))
    deviation = math.sqrt((1 / 9 + 1 / 9 + 4 / 9) / 2)
    assert grpo((1, 1, 0)) == pytest.approx((1 / 3 / deviation, 1 / 3 / deviation, -2 / 3 / deviation), rel=1e-5)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=40), st.sampled_from(sorted(ADVANTAGE_RULES)))
def test_advantages_sum_to_zero_and_keep_the_order(rewards: list[float], rule: str) -> None:
    advantages = ADVANTAGE_RULES[rule](rewards)
    assert sum(advantages) == pytest.approx(0, abs=1e-6)
    assert all(a <= b + 1e-9 for (r, a) in zip(rewards, advantages, strict=True) for (s, b) in zip(rewards, advantages, strict=True) if r < s)


def test_no_signal_when_all_agree() -> None:
    one = scored(["1", "1", "1"])
    assert (one.admission, one.trained, one.advantages) == (Admission.NO_SIGNAL, (), (0.0, 0.0, 0.0))


def test_kl_in_the_reward_is_subtracted_and_gives_signal() -> None:
    scorer = replace(SCORER, kl_coef=0.1)
    one = voted(["1", "1", "1"])
    reference = {0: [(-0.5, -0.5), (-1.5, -0.5), (-0.5, -0.5)]}
    found = scorer.score([one], majority([one], Bounds()), reference, Stream(0))[0]
    assert found.kl_penalties == pytest.approx((0.0, 1.0, 0.0))
    assert found.shaped_rewards == pytest.approx((1.0, 0.9, 1.0))
    assert found.admission is Admission.ADMITTED
    assert found.advantages == pytest.approx((0.05, -0.1, 0.05))


def test_kl_of_weight_0_in_the_reward_is_measured_only() -> None:
    one = voted(["1", "1", "1"])
    reference = {0: [(-0.5, -0.5), (-1.5, -0.5), (-0.5, -0.5)]}
    found = replace(SCORER, kl_coef=0.0).score([one], majority([one], Bounds()), reference, Stream(0))[0]
    assert found.kl_penalties == pytest.approx((0.0, 1.0, 0.0))
    assert (found.shaped_rewards, found.admission) == ((1.0, 1.0, 1.0), Admission.NO_SIGNAL)


def test_the_trained_subset_is_a_named_draw_with_the_baseline_of_all() -> None:
    scorer = replace(SCORER, group_size=2)
    one = scored(["1", "1", "1", "2", "3"], scorer=scorer)
    assert len(one.trained) == 2
    assert one.advantages == pytest.approx(rloo((1, 1, 1, 0, 0)))
    assert one.trained == trained_subset(5, 2, Stream(0).at(prompt_id="p0"))
    assert {trained_subset(5, 2, Stream(seed)) for seed in range(20)} != {one.trained}


def test_minibatches_are_whole_groups_of_the_admitted() -> None:
    groups = [scored(["1", "1", "2"], i) for i in range(5)] + [scored(["1", "1", "1"], 5)]
    parts = minibatches(groups, 2)
    assert [len(part) for part in parts] == [2, 3]
    assert [one.voted.group.index for part in parts for one in part] == [0, 1, 2, 3, 4]
    assert minibatches([groups[5]], 3) == []
    assert len(minibatches(groups[:2], 4)) == 2


@pytest.mark.parametrize(
    ("norm", "scales"), [("tokens", (1 / 8, 1 / 8, 1 / 8)), ("sequence", (1 / 6, 1 / 12, 1 / 6)), ("max_tokens", (1 / 30, 1 / 30, 1 / 30))]
)
def test_scales_make_the_loss_a_plain_sum(norm: str, scales: tuple[float, ...]) -> None:
    texts = [("#### 1", 2), ("#### 1", 4), ("#### 2", 2)]
    one = read_and_count(Group(0, 0, group(["1"]).prompt, (1,), tuple(completion(text, num_tokens=length) for text, length in texts)))
    found = SCORER.score([one], majority([one], Bounds()), (), Stream(0))
    samples = compile_samples(found, {}, norm, max_new_tokens=10)
    assert tuple(sample.scale for sample in samples) == pytest.approx(scales)
    assert [sample.advantages for sample in samples] == [(0.5, 0.5), (0.5,) * 4, (-1.0, -1.0)]
