"""When a count decides: the bounds that every vote-based source shares."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.types import Label, Outcome, Vote


@dataclass(frozen=True, slots=True)
class Bounds:
    """min_read_frac: least share of readable answers (quorum). min_share_frac: least share of the winner among all votes. Both in [0, 1]."""

    min_read_frac: float = 0.0
    min_share_frac: float = 0.0


def outcome_of(vote: Vote, bounds: Bounds) -> Outcome:
    """Whether a vote decides, and if not, why: checked in the order no answer, quorum, tie, share."""
    if not vote.counts:
        return Outcome.NO_ANSWER
    if below_quorum(vote, bounds):
        return Outcome.BELOW_QUORUM
    if vote.is_tie:
        return Outcome.TIE
    if vote.share_frac < bounds.min_share_frac:
        return Outcome.BELOW_MIN_SHARE
    return Outcome.DECIDED


def below_quorum(vote: Vote, bounds: Bounds) -> bool:
    """Whether too few answers were read; a share of exactly the bound is enough (7 of 25 for 0.28)."""
    return vote.num_read / vote.num_votes < bounds.min_read_frac


def winner_label(vote: Vote, num_votes: int, bounds: Bounds, source: str, decided_by: str) -> Label:
    """The winner of `vote`, the group's own or a teacher's, for all N completions of a group; or the reason why there is none."""
    outcome = outcome_of(vote, bounds)
    key = vote.winners[0] if outcome is Outcome.DECIDED else None
    return Label(outcome, (key,) * num_votes, source, decided_by)
