"""How right the rewards and labels of training steps were, found out after the fact. Nothing here may reach a decision of the loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from selftrain.answers import key
from selftrain.types import AnswerKey, AnswerSheet, Finish, ScoredGroup


@dataclass(frozen=True, slots=True)
class TrainingAccuracy:
    """Accuracy of a step's rewards and labels against true answers.

    num_groups: decided groups whose prompt has a true answer; only they count. num_completions: their completions.
    proxy_accuracy_frac: share of those completions whose reward says what the true answer would have said: right, or not.
    label_accuracy_frac: share of those groups whose pseudo-label is right; a group with several targets (`split_vote`) counts the right share of them.
    Both are None when num_groups is 0.
    """

    num_groups: int
    num_completions: int
    proxy_accuracy_frac: float | None
    label_accuracy_frac: float | None


def training_accuracy(groups: Iterable[ScoredGroup], sheet: AnswerSheet) -> TrainingAccuracy:
    """Compare what a step rewarded with what its true answers would have rewarded.

    A reward says right where its reason is `match`; the true answer says right where the completion is not truncated and its key is the true
    key. So wrong completions under a wrong label are rewarded correctly (with 0), which is why proxy accuracy can be far above label accuracy.
    """
    agreeing: list[bool] = []
    labels: list[float] = []
    for group in groups:
        answer = sheet.answer_of(group.voted.group.prompt.id)
        if answer is None or not group.label.is_decided:
            continue
        reference = key(answer)
        targets = [target for target in group.label.targets if target is not None]
        labels.append(sum(target == reference for target in targets) / len(targets))
        truth = _true_matches(group, reference)
        agreeing += [(reason == "match") == right for reason, right in zip(group.rewards.reasons, truth, strict=True)]
    if not labels:
        return TrainingAccuracy(0, 0, None, None)
    return TrainingAccuracy(len(labels), len(agreeing), sum(agreeing) / len(agreeing), sum(labels) / len(labels))


def _true_matches(group: ScoredGroup, reference: AnswerKey) -> list[bool]:
    """For each completion, whether the true answer would have rewarded it."""
    completions, keys = group.voted.group.completions, group.voted.answers.keys
    return [completion.finish is Finish.STOP and found == reference for completion, found in zip(completions, keys, strict=True)]
