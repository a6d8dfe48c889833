"""The vote of several wordings together: the answer with the highest mean of its shares, as exact fractions, so that ties are seen.

    harmonic   K / sum_k 1 / p_k(a)     small where any share is small, 0 where any is 0
    mean       sum_k p_k(a) / K         what all K votes poured together say

p_k(a) is the share of answer a among the votes under wording k, unread votes in the denominator.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from selftrain.labels.rules import Bounds, below_quorum
from selftrain.types import AnswerKey, Outcome, Vote

Mean = Callable[[Sequence[Vote]], dict[AnswerKey, Fraction]]
"""The votes under each wording -> the mean share of each answer; those whose mean is 0 are left out."""


def harmonic_means(votes: Sequence[Vote]) -> dict[AnswerKey, Fraction]:
    """K / sum_k 1 / p_k of each answer with votes under all K wordings. Example: 3 of 4 and 1 of 4 votes give 3/8."""
    everywhere = [key for key, _ in votes[0].counts if all(vote.count_of(key) for vote in votes)]
    return {key: len(votes) / sum((Fraction(vote.num_votes, vote.count_of(key)) for vote in votes), Fraction(0)) for key in everywhere}


def arithmetic_means(votes: Sequence[Vote]) -> dict[AnswerKey, Fraction]:
    """sum_k p_k / K of each answer with a vote under any of the K wordings. Example: 3 of 4 and 1 of 4 votes give 1/2."""
    anywhere = dict.fromkeys(key for vote in votes for key, _ in vote.counts)
    return {key: sum((Fraction(vote.count_of(key), vote.num_votes) for vote in votes), Fraction(0)) / len(votes) for key in anywhere}


MEANS: Mapping[str, Mean] = {"harmonic": harmonic_means, "mean": arithmetic_means}


def by_mean(votes: Sequence[Vote], mean: Mean, bounds: Bounds, min_agreeing: int = 0) -> tuple[Outcome, AnswerKey | None]:
    """The answer with the highest mean, or why there is none. The quorum holds for each wording, the least share for the mean.

    min_agreeing: under how many of the wordings the answer must be the single winner.
    """
    for vote in votes:
        if not vote.counts:
            return Outcome.NO_ANSWER, None
        if below_quorum(vote, bounds):
            return Outcome.BELOW_QUORUM, None
    means = mean(votes)
    highest = max(means.values(), default=None)
    best = [key for key, value in means.items() if value == highest]
    if not best:
        return Outcome.VIEWS_DIFFER, None
    if len(best) > 1:
        return Outcome.TIE, None
    if sum(vote.winner == best[0] for vote in votes) < min_agreeing:
        return Outcome.VIEWS_DIFFER, None
    return (Outcome.BELOW_MIN_SHARE, None) if float(means[best[0]]) < bounds.min_share_frac else (Outcome.DECIDED, best[0])
