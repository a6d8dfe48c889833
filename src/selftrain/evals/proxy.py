"""How trustworthy a vote is, where the truth is known: share against correctness, maj@n, labels at several thresholds. Reported, never used to decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from selftrain.answers import key
from selftrain.evals.bootstrap import Interval, mean_interval, ratio_interval
from selftrain.seeds import Stream
from selftrain.types import AnswerKey, AnswerSheet, VotedGroup
from selftrain.vote import count

BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
"""edges of the share bins of the calibration curve; the last bin holds 1"""
THRESHOLDS = (0.0, 0.25, 0.375, 0.5, 0.625, 0.75, 0.9)
NUM_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class JudgedVote:
    """A vote beside the truth. keys: of the N completions. right: for each, whether it is. right_keys: answers most of whose completions are right."""

    keys: tuple[AnswerKey | None, ...]
    right: tuple[bool, ...]

    @property
    def right_keys(self) -> frozenset[AnswerKey]:
        """A verifier that looks at the way may judge two completions with one answer differently."""
        by_key: dict[AnswerKey, list[bool]] = {}
        for one, right in zip(self.keys, self.right, strict=True):
            if one is not None:
                by_key.setdefault(one, []).append(right)
        return frozenset(one for one, flags in by_key.items() if 2 * sum(flags) > len(flags))

    @property
    def share_frac(self) -> float:
        return count(self.keys).share_frac

    @property
    def winner_is_right(self) -> bool | None:
        """None without a single winner."""
        winners = count(self.keys).winners
        return winners[0] in self.right_keys if len(winners) == 1 else None


@dataclass(frozen=True, slots=True)
class Bin:
    """Votes with a single winner whose share lies in [low, high)."""

    low: float
    high: float
    num_prompts: int
    share_mean_frac: float
    accuracy: Interval


@dataclass(frozen=True, slots=True)
class AtThreshold:
    """Votes with a single winner and at least this share. accuracy: of these winners, None without any."""

    min_share_frac: float
    decided_frac: float
    accuracy: Interval | None


@dataclass(frozen=True, slots=True)
class ProxyQuality:
    """num_prompts: with a known truth. avg, any_right: avg@N, pass@N. maj_by_votes: (n, maj@n) for n = 1, 2, 4, ... N.

    auc: chance that a right winner has a larger share than a wrong one (ties count half), None unless there are both.
    calibration_error_frac: mean distance of share and accuracy over the bins, weighted by prompts; None without a winner.
    """

    num_prompts: int
    num_votes: int
    avg: Interval
    any_right: Interval
    maj_by_votes: tuple[tuple[int, Interval], ...]
    auc: Interval | None
    bins: tuple[Bin, ...]
    calibration_error_frac: float | None
    thresholds: tuple[AtThreshold, ...]

    @property
    def maj(self) -> Interval:
        return self.maj_by_votes[-1][1]


def judged_by_answer(one: VotedGroup, sheet: AnswerSheet) -> JudgedVote | None:
    """By canonical keys; None where the prompt has no true answer."""
    answer = sheet.answer_of(one.group.prompt.id)
    if answer is None:
        return None
    reference = key(answer)
    return JudgedVote(one.answers.keys, tuple(found == reference for found in one.answers.keys))


def judged_by_checks(one: VotedGroup) -> JudgedVote | None:
    """By a verifier, whose score 1 is right; None where it gave no score at all."""
    if all(check.score is None for check in one.checks):
        return None
    return JudgedVote(one.answers.keys, tuple(check.score == 1 for check in one.checks))


def proxy_quality(votes: Sequence[JudgedVote]) -> ProxyQuality:
    """Raises ValueError without votes."""
    num_votes = min(len(one.keys) for one in votes)
    clear = [(one.share_frac, right) for one in votes if (right := one.winner_is_right) is not None]
    bins = calibration_bins(clear)
    sizes = [size for size in (2**power for power in range(num_votes.bit_length())) if size < num_votes] + [num_votes]
    return ProxyQuality(
        num_prompts=len(votes),
        num_votes=num_votes,
        avg=mean_interval([fmean(one.right) for one in votes]),
        any_right=mean_interval([float(any(one.right)) for one in votes]),
        maj_by_votes=tuple((size, mean_interval([maj_at(one, size) for one in votes])) for size in sizes),
        auc=auc_interval([share for share, _ in clear], [right for _, right in clear]),
        bins=bins,
        calibration_error_frac=sum(one.num_prompts * abs(one.share_mean_frac - one.accuracy.value) for one in bins) / len(clear) if clear else None,
        thresholds=tuple(at_threshold(votes, least) for least in THRESHOLDS),
    )


def maj_at(one: JudgedVote, size: int) -> float:
    """maj@size, the mean over the disjoint parts that the votes are cut into; a tie counts as the share of right keys among its winners."""
    right_keys = one.right_keys
    parts = [count(one.keys[at : at + size]).winners for at in range(0, len(one.keys) - size + 1, size)]
    return fmean(sum(winner in right_keys for winner in winners) / len(winners) if winners else 0.0 for winners in parts)


def calibration_bins(clear: Sequence[tuple[float, bool]]) -> tuple[Bin, ...]:
    """Bins without a vote are left out. clear: (share, whether the winner is right)."""
    found = []
    for low, high in pairwise(BINS):
        inside = [(share, right) for share, right in clear if low <= share < high or (high == BINS[-1] and share == high)]
        if inside:
            accuracy = mean_interval([float(right) for _, right in inside])
            found.append(Bin(low, high, len(inside), fmean(share for share, _ in inside), accuracy))
    return tuple(found)


def at_threshold(votes: Sequence[JudgedVote], least: float) -> AtThreshold:
    decided = [float(one.winner_is_right is not None and one.share_frac >= least) for one in votes]
    right = [float(bool(one.winner_is_right)) * there for one, there in zip(votes, decided, strict=True)]
    return AtThreshold(least, fmean(decided), ratio_interval(right, decided) if any(decided) else None)


def auc(scores: Sequence[float], flags: Sequence[bool]) -> float | None:
    """Chance that a score with a true flag is above one with a false one, ties counted half; None unless there are both."""
    beats, weights = _beats(scores), np.asarray(flags, dtype=np.float64)
    pairs = weights.sum() * (1 - weights).sum()
    return float(weights @ beats @ (1 - weights) / pairs) if pairs else None


def auc_interval(scores: Sequence[float], flags: Sequence[bool]) -> Interval | None:
    """With the 95 % bootstrap interval; resamples with one kind of flag only are left out. Always the same for the same values."""
    value = auc(scores, flags)
    if value is None:
        return None
    size, weights = len(scores), np.asarray(flags, dtype=np.float64)
    drawn = Stream(0, stream="bootstrap auc").generator().multinomial(size, np.full(size, 1 / size), size=NUM_RESAMPLES).astype(np.float64)
    tops = ((drawn * weights) @ _beats(scores) * (drawn * (1 - weights))).sum(axis=1)
    pairs = (drawn @ weights) * (drawn @ (1 - weights))
    low, high = np.percentile(tops[pairs > 0] / pairs[pairs > 0], [2.5, 97.5])
    return Interval(value, float(low), float(high))


def _beats(scores: Sequence[float]) -> NDArray[np.float64]:
    """[n, n]: 1 where the row's score is above the column's, 1/2 where they are equal."""
    array = np.asarray(scores, dtype=np.float64)
    return np.asarray((array[:, None] > array[None]) + 0.5 * (array[:, None] == array[None]))
