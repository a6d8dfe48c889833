"""How much of what the start answered is kept, from completions of the start and of the policy together.

A few completions of the policy alone are too noisy to see a loss of 5 points. The start's completions were drawn once and cost one forward pass at a probe: how
probable they are now says the same while the policy is near its start, hardly with any noise, since they are the same ones each time. The balance heuristic of
multiple importance sampling (Veach & Guibas, "Optimally Combining Sampling Techniques for Monte Carlo Rendering", 1995) weighs both, so that far from the start
the policy's own completions count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from selftrain.evals.bootstrap import mean_interval
from selftrain.types import AnswerKey, Group, VotedGroup

MIN_KEPT = 8
"""Of fewer prompts no interval means anything."""
MAX_LOG_RATIO = 50.0
SCORED = 3
"""completions of the start of each prompt whose probability is looked at; more of them tell next to nothing more (docs/log.md)"""
MOST_RATIO = 3.0
"""A completion that has become more probable than that says no more than that."""


@dataclass(frozen=True, slots=True)
class Agreeing:
    """Completions of one sampler to one prompt that have the start's winner. log_ratios: ln(policy / start) of each, nats; num_votes: how many there were, with
    those of other answers; a part of that where only a part of those that agree is looked at.
    """

    log_ratios: Sequence[float]
    num_votes: float


@dataclass(frozen=True, slots=True)
class Lost:
    """Kept share at the best probe so far minus now, mean over prompts: in [-1, 1]. low: lower end of the 95 % interval, paired over prompts."""

    value: float
    low: float


def log_ratios(own: Sequence[Sequence[float]], other: Sequence[Sequence[float]]) -> list[float]:
    """ln(probability under the one / under the other) of each completion, at most `MAX_LOG_RATIO` either way. [N][T] each."""
    found = (math.fsum(one) - math.fsum(two) for one, two in zip(own, other, strict=True))
    return [max(-MAX_LOG_RATIO, min(MAX_LOG_RATIO, ratio)) for ratio in found]


def kept_share(start: Agreeing, policy: Agreeing) -> float:
    """An estimate without bias of the share of the policy's answers to a prompt that are the start's winner; of one prompt alone it may be above 1.

    With n_s completions of the start and n_p >= 1 of the policy, each that agrees adds 1 / (n_s start / policy + n_p), whoever drew it.
    """
    ratios = (*start.log_ratios, *policy.log_ratios)
    return math.fsum(1.0 / (start.num_votes * math.exp(-ratio) + policy.num_votes) for ratio in ratios)


def agreeing(one: VotedGroup, winner: AnswerKey) -> Group:
    """The group with the first `SCORED` of its completions that have this answer."""
    pairs = zip(one.group.completions, one.answers.keys, strict=True)
    return replace(one.group, completions=tuple(done for done, key in pairs if key == winner)[:SCORED])


@dataclass(frozen=True, slots=True)
class Fallen:
    """How much less probable, relative to the start, one completion of each prompt has become: mean over prompts, in [-3, 3], and its standard error."""

    value: float
    error: float


def fallen(before: Mapping[str, float], now: Mapping[str, float]) -> Fallen | None:
    """Over the prompts of both; None with fewer than `MIN_KEPT`."""
    differences = [before[of] - ratio for of, ratio in now.items() if of in before]
    if len(differences) < MIN_KEPT:
        return None
    return Fallen(fmean(differences), stdev(differences) / math.sqrt(len(differences)))


def bounded_ratio(log_ratio: float) -> float:
    """Policy / start, at most `MOST_RATIO`."""
    return min(MOST_RATIO, math.exp(log_ratio))


def lost(best: Mapping[str, float], now: Mapping[str, float]) -> Lost | None:
    """What is lost from the best probe, over the prompts of both; None with fewer than `MIN_KEPT`."""
    differences = [best[of] - share for of, share in now.items() if of in best]
    if len(differences) < MIN_KEPT:
        return None
    interval = mean_interval(differences)
    return Lost(interval.value, interval.low)
