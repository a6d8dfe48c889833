"""Confidence: how sure the policy was of the tokens it drew is the reward. No answer is read, none is compared, and no pseudo-label is named.

    token_entropy    r_i = -(1/T) sum_t H(p_t)                                                           RENT, arXiv 2505.22660
    self_certainty   r_i = -(1/(T V)) sum_t sum_v log(V p_tv) = (1/T) sum_t KL(uniform || p_t)           Intuitor, arXiv 2505.19590

p_t is the distribution that token t was drawn from, over V tokens; both are in nats, at most 0 and at least 0, and have no scale of their own: what counts
is how a reward stands in its group, and `advantage.rule = grpo` divides by the group's deviation, as the papers do.

A truncated completion has the least reward of those that ended, against the papers, which score it like the others: the surest text is one that
repeats itself until it is cut off, and it would win.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from selftrain.errors import SamplerError
from selftrain.labels.rules import Bounds
from selftrain.types import Completion, Finish, Label, Outcome, VotedGroup

NEEDS_CERTAINTIES = ("self_certainty",)
"""label sources for which the completions that vote carry their certainties"""
ABOVE_MEAN, BELOW_MEAN, TRUNCATED = "above_mean", "below_mean", "truncated"
"""notes: how a reward stands to the mean of those that ended in its group"""


def token_entropy(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG001
    """Minus the mean entropy of a completion's tokens. Raises SamplerError where the sampler gave none."""
    return [confident(one, ("token_entropy", "entropy"), lambda done: -mean_of("token_entropy", done.entropies)) for one in voted]


def self_certainty(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG001
    """The mean certainty of a completion's tokens. Raises SamplerError where the sampler gave none, or one that is not finite."""
    return [confident(one, ("self_certainty", "certainty"), lambda done: mean_of("self_certainty", done.certainties)) for one in voted]


def confident(one: VotedGroup, who: tuple[str, str], value: Callable[[Completion], float]) -> Label:
    """A decided label without a key. who: source, and the first word of who decided. value: of a completion that ended."""
    done = one.group.completions
    ended = {index: value(completion) for index, completion in enumerate(done) if completion.finish is Finish.STOP}
    least, most = min(ended.values(), default=0.0), max(ended.values(), default=0.0)
    mean = min(most, math.fsum(ended.values()) / max(1, len(ended)))
    notes = tuple(TRUNCATED if index not in ended else ABOVE_MEAN if ended[index] > mean else BELOW_MEAN for index in range(len(done)))
    values = tuple(ended.get(index, least) for index in range(len(done)))
    return Label(Outcome.DECIDED, (None,) * len(done), who[0], f"{who[1]} {done[0].version}", values=values, notes=notes)


def mean_of(source: str, statistics: Sequence[float]) -> float:
    """The mean over tokens, summed exactly, so that it does not depend on their order."""
    if not statistics:
        raise SamplerError(f"labels.source = {source}", "the sampler does not give what it is made from", "sample with policy.sampler = torch")
    mean = math.fsum(statistics) / len(statistics)
    if not math.isfinite(mean):
        why = "the policy gives some tokens of its vocabulary probability 0, and then it is infinite"
        raise SamplerError(f"labels.source = {source}", why, "take labels.source = token_entropy, or a model without masked tokens")
    return mean
