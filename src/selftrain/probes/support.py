"""How much of the start's own vote stands behind the policy's answers, on easy and on hard held-aside prompts alike.

    support(policy) = mean over prompts of sum_a p_policy(a) p_start(a)

Sharpening a vote raises it, and so does leaving slips behind: right answers are repeated, slips seldom. A policy that takes up answers which the start hardly
ever gave loses it, also where the start was never sure, so that nothing it agreed on is lost. It is what candidates for the hand-over are compared by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import islice
from statistics import stdev

from selftrain.metrics import mean
from selftrain.probes.base import Base
from selftrain.probes.probe_set import Kind, Probe, ProbeSet
from selftrain.probes.signals import agreement_with_the_rest, easy, mutual_agreement, of_kind, self_agreement
from selftrain.types import Vote, VotedGroup

MIN_PROMPTS = 16
"""Of fewer prompts the support is noise and is left out."""


def times_asked(base: Base, num_prompts: int) -> int:
    """How many times as many completions of a prompt are needed where the start was asked fewer prompts than `num_prompts`."""
    return math.ceil(num_prompts / max(1, min(num_prompts, len(base.votes))))


def supporting(base: Base, probe_set: ProbeSet, num_prompts: int) -> list[Probe]:
    """The first `num_prompts` held-aside prompts that the start was asked, the easy ones as every probe asks them where one time is enough; none where there
    are fewer than `MIN_PROMPTS`.
    """
    first, surest = set(islice(base.votes, num_prompts)), easy(base.votes) if times_asked(base, num_prompts) == 1 else {}
    if len(first) < MIN_PROMPTS:
        return []
    own = (one for one in probe_set.of_kind(Kind.OWN) if one.of in first)
    return [one if one.of in surest else replace(one, kind=Kind.SUPPORT) for one in own]


def support_signals(groups: Sequence[VotedGroup], base: Mapping[str, Vote], num_prompts: int) -> dict[str, float]:
    """`support/base_share_frac`, in [0, 1], and the standard error of its difference to the start's, paired over prompts, from the answers alone; nothing where
    it was not asked for. base: the start's votes by held-aside prompt. Of a policy without an update also how often it gives its own most frequent answer,
    `support/start_share_frac`.

    That of a policy without an update follows from the start's votes without bias: the share of the pairs of two of them that agree.
    """
    first = dict(islice(base.items(), num_prompts))
    asked = {**of_kind(groups, Kind.OWN), **of_kind(groups, Kind.SUPPORT)}
    is_start = bool(asked) and all(not one.group.completions[0].version.updates for one in asked.values())
    if len(first) < MIN_PROMPTS or not (is_start or asked.keys() >= first.keys()):
        return {}
    then = [self_agreement(vote) for vote in first.values()]
    now = then if is_start else [mutual_agreement(asked[of].vote, vote) for of, vote in first.items()]
    error = stdev(one - other for one, other in zip(now, then, strict=True)) / math.sqrt(len(first))
    own = {"support/start_share_frac": mean([agreement_with_the_rest(vote) for vote in first.values()])} if is_start else {}
    return {"support/base_share_frac": mean(now), "support/error_frac": error, **own}
