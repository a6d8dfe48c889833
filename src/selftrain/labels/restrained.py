"""Restrained vote: soft weights over all answers instead of one winner, a penalty where no answer has support (RESTRAIN, arXiv 2510.02172).

    g(s) = exp(-(s - 1)^2 / (2 sigma^2)),   w(a) = g(c(a) / N) / sum over answers b of g(c(b) / N),   r_i = w(a_i)
    if the largest share is below min_share: r_i = 0 for all and each advantage is lowered by the penalty
    weight of the group = exp(-(s0 - 1)^2 / (2 prompt_sigma^2)), s0 the share of the winner among as many completions of the frozen start

The paper sums one loss per answer with these weights; for advantages that are linear in the rewards (rloo, dr_grpo) that is the loss of the summed rewards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from selftrain.labels.frozen import teacher_requests, teachers_of
from selftrain.labels.rules import Bounds, outcome_of
from selftrain.policies.base import ExtraRequest
from selftrain.reward import unrewarded
from selftrain.types import AnswerKey, Label, Outcome, Vote, VotedGroup


def gaussian(share: float, sigma: float) -> float:
    """1 for a share of 1, less the farther below."""
    return math.exp(-((share - 1) ** 2) / (2 * sigma**2))


def soft_weights(vote: Vote, sigma: float) -> dict[AnswerKey, float]:
    """The weight of each answer; they add up to 1. Where sigma is so small that every g is 0 as a number, only the most frequent answers have one."""
    raw = {key: gaussian(count / vote.num_votes, sigma) for key, count in vote.counts}
    if not any(raw.values()):
        raw = {key: float(key in vote.winners) for key in raw}
    total = math.fsum(raw.values())
    return {key: value / total for key, value in raw.items()}


class Restrained:
    """sigma: width of g over vote shares. min_share: kappa. penalty: delta. prompt_sigma: None for no weight of the prompt, and then no extra samples."""

    def __init__(self, sigma: float, min_share: float, penalty: float, prompt_sigma: float | None) -> None:
        self._sigma, self._min_share, self._penalty, self._prompt_sigma = sigma, min_share, penalty, prompt_sigma

    def requests(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[ExtraRequest]:  # noqa: ARG002
        """As many completions of the frozen start as vote, where prompts are weighed."""
        return [] if self._prompt_sigma is None else teacher_requests(voted)

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """A tie decides: both answers have the same weight."""
        return [self._one(one, bounds) for one in voted]

    def _one(self, one: VotedGroup, bounds: Bounds) -> Label:
        num, decided_by = one.vote.num_votes, f"vote {one.group.completions[0].version}"
        outcome = outcome_of(one.vote, bounds)
        if outcome is Outcome.TIE:  # it is found before a share that is too small
            outcome = Outcome.BELOW_MIN_SHARE if one.vote.share_frac < bounds.min_share_frac else Outcome.DECIDED
        if outcome is not Outcome.DECIDED:
            return Label(outcome, (None,) * num, "restrained", decided_by)
        spurious = one.vote.share_frac < self._min_share
        weights = {} if spurious else soft_weights(one.vote, self._sigma)
        values, notes = zip(*(self._value(one, index, weights) for index in range(num)), strict=True)
        key = None if spurious or one.vote.is_tie else one.vote.winners[0]
        offset = -self._penalty if spurious else 0.0
        return Label(Outcome.DECIDED, (key,) * num, "restrained", decided_by, weight=self._weight(one), offset=offset, values=values, notes=notes)

    def _value(self, one: VotedGroup, index: int, weights: dict[AnswerKey, float]) -> tuple[float, str]:
        key = one.answers.keys[index]
        if no := unrewarded(one, index):
            return 0.0, no
        if key is None or not weights:
            return 0.0, "below_min_share"
        return weights[key], "match" if key in one.vote.winners else "mismatch"

    def _weight(self, one: VotedGroup) -> float:
        if self._prompt_sigma is None:
            return 1.0
        (teacher,) = teachers_of(one)
        return gaussian(teacher.vote.share_frac, self._prompt_sigma)
