"""Accuracy of rewards and labels, after the fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from selftrain.answers import key
from selftrain.evals import TrainingAccuracy, training_accuracy
from selftrain.labels import Bounds
from selftrain.labels.controls import inverted
from selftrain.labels.restrained import Restrained
from selftrain.reward import match, rewards_of, share
from selftrain.types import Admission, AnswerKey, AnswerSheet, Finish, Label, Outcome, ScoredGroup
from tests.builders import completion, voted


def scored(answers: Sequence[str | None], targets: Sequence[str | None], prompt_id: str = "p", rule: object = match) -> ScoredGroup:
    group = voted(answers, prompt_id)
    keys: tuple[AnswerKey | None, ...] = tuple(None if target is None else key(target) for target in targets)
    label = Label(Outcome.DECIDED, keys, "majority", "vote 0:3")
    return ScoredGroup(group, label, rewards_of(group, label, rule), (), (), (), Admission.ADMITTED, ())  # type: ignore[arg-type]


SHEET = AnswerSheet({"p": "1", "q": "1"})


def test_wrong_completions_under_a_wrong_label_are_rewarded_rightly() -> None:
    """Answers 2 2 3 1 with the label 2 and the truth 1: rewards 1 1 0 0, true rewards 0 0 0 1; only the third agrees."""
    assert training_accuracy([scored(["2", "2", "3", "1"], ["2"] * 4)], SHEET) == TrainingAccuracy(1, 4, 0.25, 0.0)


def test_lucky_hit() -> None:
    """Answers all different: the label 2 is wrong, yet two of three rewards are what the truth would give."""
    found = training_accuracy([scored(["2", "3", "4", None], ["2"] * 4)], SHEET)
    assert found == TrainingAccuracy(1, 4, 0.75, 0.0)


def test_a_right_label_rewards_rightly() -> None:
    assert training_accuracy([scored(["1", "1.0", "3", None], ["1"] * 4)], SHEET) == TrainingAccuracy(1, 4, 1.0, 1.0)


def test_groups_are_pooled_by_completions_and_by_labels() -> None:
    groups = [scored(["1", "1"], ["1"] * 2), scored(["2", "2", "2", "2"], ["2"] * 4, "q")]
    assert training_accuracy(groups, SHEET) == TrainingAccuracy(2, 6, pytest.approx(2 / 6), 0.5)


def test_a_truncated_completion_agrees_with_the_truth_when_it_gets_nothing() -> None:
    group = scored(["1", "1"], ["1"] * 2)
    cut = completion("#### 1", Finish.LENGTH)
    object.__setattr__(group.voted.group, "completions", (group.voted.group.completions[0], cut))
    again = ScoredGroup(group.voted, group.label, rewards_of(group.voted, group.label, match), (), (), (), Admission.ADMITTED, ())
    assert again.rewards.reasons == ("match", "truncated")
    assert training_accuracy([again], SHEET) == TrainingAccuracy(1, 2, 1.0, 1.0)


def test_soft_rewards_are_judged_by_their_reason() -> None:
    group = scored(["1", "1", "2", "3"], ["1"] * 4, rule=share)
    assert group.rewards.values == (0.5, 0.5, 0.25, 0.25)
    assert training_accuracy([group], SHEET) == TrainingAccuracy(1, 4, 1.0, 1.0)


def test_the_soft_weight_of_a_winner_says_right() -> None:
    """Restrained, answers 1 1 1 2 3 4: a weight of 0.45 for the winner and 0.18 for the others; inverted gives a match 0 and a mismatch 1."""
    one = voted(["1", "1", "1", "2", "3", "4"], "p")
    (soft,) = Restrained(0.5, 0.2, 0.5, None)([one], Bounds())
    assert max(soft.values) < 0.5
    for label, accuracy in ((soft, 1.0), (inverted([one], Bounds())[0], 0.0)):
        group = ScoredGroup(one, label, rewards_of(one, label, match), (), (), (), Admission.ADMITTED, ())
        assert training_accuracy([group], SHEET).proxy_accuracy_frac == accuracy


def test_a_split_label_counts_the_right_share_of_its_targets() -> None:
    """Halves of `1 1 | 2 2` label each other: targets 2 2 1 1. No reward matches; the truth rewards the first two."""
    assert training_accuracy([scored(["1", "1", "2", "2"], ["2", "2", "1", "1"])], SHEET) == TrainingAccuracy(1, 4, 0.5, 0.5)
    assert training_accuracy([scored(["1", "1", "2", "2"], [None, None, "1", "1"])], SHEET).label_accuracy_frac == 1.0


def test_undecided_groups_and_prompts_without_an_answer_do_not_count() -> None:
    group = voted(["1", "2"])
    tie = Label(Outcome.TIE, (None, None), "majority", "vote 0:3")
    undecided = ScoredGroup(group, tie, rewards_of(group, tie, match), (), (), (), Admission.UNDECIDED, ())
    assert training_accuracy([undecided, scored(["1"], ["1"], "unknown")], SHEET) == TrainingAccuracy(0, 0, None, None)
    assert training_accuracy([], SHEET) == TrainingAccuracy(0, 0, None, None)


def test_a_source_without_a_pseudo_label_has_no_label_accuracy() -> None:
    """Rewards 1 0 1 0 that a source gave; the truth would have given 1 1 0 0."""
    group = scored(["1", "1", "2", None], [None] * 4)
    group = replace(group, label=replace(group.label, values=(1.0, 0.0, 0.5, 0.0), notes=("drawn",) * 4))
    assert training_accuracy([group], SHEET) == TrainingAccuracy(1, 4, 0.5, None)
