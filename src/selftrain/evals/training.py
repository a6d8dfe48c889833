"""How right the rewards and labels of training steps were, found out after the fact. Nothing here may reach a decision of the loop."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from selftrain.answers import key
from selftrain.labels.confidence import ABOVE_MEAN
from selftrain.types import AnswerKey, AnswerSheet, Finish, ScoredGroup


@dataclass(frozen=True, slots=True)
class TrainingAccuracy:
    """Accuracy of a step's rewards and labels against true answers.

    num_groups: decided groups whose prompt has a true answer; only they count. num_completions: their completions.
    proxy_accuracy_frac: share of those completions whose reward says what the true answer would have said: right, or not.
    label_accuracy_frac: share of those groups whose pseudo-label is right, of the ones that have one; a group with several targets (`split_vote`) counts
    the right share of them.
    Both are None when there is nothing to count.
    """

    num_groups: int
    num_completions: int
    proxy_accuracy_frac: float | None
    label_accuracy_frac: float | None


def training_accuracy(groups: Iterable[ScoredGroup], sheet: AnswerSheet) -> TrainingAccuracy:
    """Compare what a step rewarded with what its true answers would have rewarded.

    A reward says right where its reason is `match`; if the label source gave it, where it is at least 0.5, or above 0 with that reason (the soft weight of a
    winner may be small), and of a reward without a scale of its own, confidence in nats, also in a mixture, where it is above the group's mean. The true
    answer says right where the completion is not truncated and its key is the true key. So wrong completions under a wrong label are rewarded correctly
    (with 0), which is why proxy accuracy can be far above label accuracy.
    """
    num_groups = 0
    agreeing: list[bool] = []
    labels: list[float] = []
    for group in groups:
        answer = sheet.answer_of(group.voted.group.prompt.id)
        if answer is None or not group.label.is_decided:
            continue
        reference = key(answer)
        targets = [target for target in group.label.targets if target is not None]
        num_groups += 1
        if targets:
            labels.append(sum(target == reference for target in targets) / len(targets))
        agreeing += [said == right for said, right in zip(_said_right(group), _true_matches(group, reference), strict=True)]
    return TrainingAccuracy(num_groups, len(agreeing), _share(agreeing), _share(labels))


def _share(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _said_right(group: ScoredGroup) -> list[bool]:
    """For each completion, whether its reward says that it is right."""
    if any(ABOVE_MEAN in note for note in group.label.notes):
        mean = sum(group.label.values) / len(group.label.values)
        return [value > mean for value in group.label.values]
    if group.label.values:
        return [value >= 0.5 or (value > 0 and note == "match") for value, note in zip(group.label.values, group.label.notes, strict=True)]
    return [reason == "match" for reason in group.rewards.reasons]


def _true_matches(group: ScoredGroup, reference: AnswerKey) -> list[bool]:
    """For each completion, whether the true answer would have rewarded it."""
    completions, keys = group.voted.group.completions, group.voted.answers.keys
    return [completion.finish is Finish.STOP and found == reference for completion, found in zip(completions, keys, strict=True)]
