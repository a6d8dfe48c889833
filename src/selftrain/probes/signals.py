"""Votes and log-probabilities of a probe -> signals. Formulas, directions and the failures they catch: docs/probes.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from selftrain.answers import key
from selftrain.masking import answer_mask
from selftrain.metrics import collision_frac, mean
from selftrain.objective import kl_and_slope
from selftrain.probes.counterfactual import swapped
from selftrain.probes.kept import MIN_KEPT
from selftrain.probes.probe_set import Kind, address
from selftrain.types import AnswerKey, Group, Vote, VotedGroup
from selftrain.vote import count

MIN_PAIRS = 4
"""A signal of fewer prompts than that is noise and is left out."""

FROM_LOGPROBS = (
    "probe/base_kept_frac",
    "probe/base_lost_frac",
    "probe/base_lost_low_frac",
    "probe/kl_base_nats",
    "probe/kl_answer_nats",
    "probe/kl_reasoning_nats",
    "probe/drift_nats",
)
"""signals that no text tells"""

TokenLogprobs = Sequence[Sequence[Sequence[float]]]
"""[P][N][T] log-probabilities in nats"""


def answer_signals(groups: Sequence[VotedGroup], base: Mapping[str, Vote], canaries: Mapping[str, AnswerKey]) -> dict[str, float]:
    """The signals that follow from the answers alone, so from the record. base: the start's votes by held-aside prompt."""
    own = of_kind(groups, Kind.OWN)
    if not own:
        return {}
    completions = [done for one in own.values() for done in one.group.completions]
    values = {
        "probe/share_mean_frac": share_mean_frac([one.vote for one in own.values()]),
        "probe/read_mean_frac": sum(one.vote.num_read for one in own.values()) / len(completions),
        "probe/collision_frac": collision_frac([one.vote for one in own.values()]),
        "probe/length_mean_tokens": mean([len(done.token_ids) for done in completions]),
        "probe/base_agree_frac": base_agree_frac(own, base),
        "probe/number_unchanged_frac": unchanged_frac(paired(groups, Kind.NUMBER)),
        "probe/reword_agree_frac": agreement([(one.vote, other.vote) for one, other in paired(groups, Kind.REWORD)]),
        "probe/swap_changed_frac": changed_frac(paired(groups, Kind.SWAP)),
        "probe/canary_right_frac": right_frac(of_kind(groups, Kind.CANARY), canaries),
    }
    return {name: value for name, value in values.items() if value is not None}


def share_mean_frac(votes: Sequence[Vote]) -> float | None:
    """Mean share of the winner where more than one voted; None where nobody did."""
    shares = [vote.share_frac for vote in votes if vote.num_votes > 1]
    return mean(shares) if shares else None


def of_kind(groups: Iterable[VotedGroup], kind: Kind) -> dict[str, VotedGroup]:
    """By the prompt they are of, the groups of one kind that have completions."""
    places = ((address(one.group.prompt.id), one) for one in groups if one.group.completions)
    return {of: one for (found, of), one in places if found is kind}


def paired(groups: Sequence[VotedGroup], kind: Kind) -> list[tuple[VotedGroup, VotedGroup]]:
    """(the held-aside prompt as it is, its partner of a kind)."""
    own, others = of_kind(groups, Kind.OWN), of_kind(groups, kind)
    return [(own[of], other) for of, other in others.items() if of in own]


def easy(base: Mapping[str, Vote]) -> dict[str, AnswerKey]:
    """The start's winner where it had at least half of the votes, surest first; of the `MIN_KEPT` surest prompts where there are fewer than that. Prompts
    without a single winner are not among them.
    """
    decided = sorted((-vote.share_frac, of, vote.winners[0]) for of, vote in base.items() if len(vote.winners) == 1)
    return {of: winner for _, of, winner in decided[: max(num_easy(base.values()), MIN_KEPT)]}


def num_easy(votes: Iterable[Vote]) -> int:
    """How many have a single winner with at least half of the votes."""
    return sum(len(vote.winners) == 1 and vote.share_frac >= 0.5 for vote in votes)


def base_agree_frac(own: Mapping[str, VotedGroup], base: Mapping[str, Vote]) -> float | None:
    """Mean over easy prompts of the share of the policy's completions that have the start's winner; None with fewer than MIN_PAIRS of them."""
    shares = [own[of].vote.count_of(winner) / own[of].vote.num_votes for of, winner in easy(base).items() if of in own]
    return mean(shares) if len(shares) >= MIN_PAIRS else None


def unchanged_frac(pairs: Sequence[tuple[VotedGroup, VotedGroup]]) -> float | None:
    """Mean over pairs of the share of the read answers to the changed prompt that are the winner of the unchanged one (of several, on average)."""
    shares = [
        sum(other.vote.count_of(winner) for winner in one.vote.winners) / len(one.vote.winners) / other.vote.num_read
        for one, other in pairs
        if one.vote.winners and other.vote.num_read
    ]
    return mean(shares) if len(shares) >= MIN_PAIRS else None


def agreement(pairs: Sequence[tuple[Vote, Vote]]) -> float | None:
    """1 minus what an answer to one prompt agrees less with an answer to its partner than with another one to the same prompt; in [0, 1].

    1 - (W - B), means over pairs, with B = sum_k p(k) q(k) and W the mean of sum_k c(k) (c(k) - 1) / (N (N - 1)) of both: each is unbiased for any N >= 2, so
    1 means that the change made no difference, however few the votes. Unread answers agree with nothing; None where no two answers agree.
    """
    between = mean([mutual_agreement(one, other) for one, other in pairs])
    within = mean([(self_agreement(one) + self_agreement(other)) / 2 for one, other in pairs])
    return 1.0 - max(0.0, within - between) if len(pairs) >= MIN_PAIRS and within > 0 else None


def mutual_agreement(one: Vote, other: Vote) -> float:
    """Share of the pairs of a completion of each that have the same answer."""
    return sum(votes * other.count_of(found) for found, votes in one.counts) / (one.num_votes * other.num_votes)


def self_agreement(vote: Vote) -> float:
    """Share of the pairs of two completions that have the same answer."""
    return sum(votes * (votes - 1) for _, votes in vote.counts) / max(1, vote.num_votes * (vote.num_votes - 1))


def agreement_with_the_rest(vote: Vote) -> float:
    """How often a completion gives the answer that the others of its prompt give most often, equal ones shared: the share of the most frequent answer
    without the luck of being the winner of a few votes, and so with few of them a little too low.
    """
    right = 0.0
    for found, votes in vote.counts:
        others = [count - (other == found) for other, count in vote.counts]
        if max(others) == votes - 1 > 0:
            right += votes / others.count(votes - 1)
    return right / vote.num_votes


def changed_frac(pairs: Sequence[tuple[VotedGroup, VotedGroup]]) -> float | None:
    """1 - agreement. An answer that names a person may name the partner instead: `the uncle` under one prompt is `the aunt` under the other."""
    same = agreement([(translated(one, set(dict(other.vote.counts))), other.vote) for one, other in pairs])
    return None if same is None else 1 - same


def translated(one: VotedGroup, others: set[AnswerKey]) -> Vote:
    """The vote with the people of its answers swapped, wherever the partner has only the swapped answer."""
    renamed: list[AnswerKey | None] = []
    for text, found in zip(one.answers.texts, one.answers.keys, strict=True):
        other = swapped(text) if text is not None and found not in others else None
        renamed.append(found if other is None else key(other))
    return count(renamed)


def right_frac(groups: Mapping[str, VotedGroup], canaries: Mapping[str, AnswerKey]) -> float | None:
    """Share of the completions of canaries that are right; None without canaries."""
    shares = [one.vote.count_of(canaries[of]) / one.vote.num_votes for of, one in groups.items() if of in canaries]
    return mean(shares) if shares else None


def kl_signals(own: Sequence[Group], reference: TokenLogprobs) -> dict[str, float]:
    """KL(policy || start) per token of the policy's own completions, k3, over all tokens, those of the answers, and the others. None where there are none."""
    gaps: dict[bool, list[float]] = {True: [], False: []}
    for group, values in zip(own, reference, strict=True):
        for done, ref in zip(group.completions, values, strict=True):
            if done.token_ids:
                estimates = kl_and_slope(np, "k3", np.asarray(done.logprobs), np.asarray(ref))[0].tolist()
                for estimate, is_reasoning in zip(estimates, answer_mask(done), strict=True):
                    gaps[is_reasoning].append(estimate)
    parts = {"probe/kl_base_nats": gaps[True] + gaps[False], "probe/kl_answer_nats": gaps[False], "probe/kl_reasoning_nats": gaps[True]}
    return {name: mean(values) for name, values in parts.items() if values}


def drift_signals(started: Sequence[Group], current: TokenLogprobs) -> dict[str, float]:
    """KL(start || policy) per token of the start's off-domain completions, k3. current: their log-probabilities under the policy."""
    pairs = [(done.logprobs, now) for group, values in zip(started, current, strict=True) for done, now in zip(group.completions, values, strict=True)]
    estimates = [value for then, now in pairs for value in kl_and_slope(np, "k3", np.asarray(then), np.asarray(now))[0].tolist()]
    return {"probe/drift_nats": mean(estimates)} if estimates else {}
