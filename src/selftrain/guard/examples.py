"""Which completions of a step show what a rule found: their places in the ledger, most telling first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from selftrain.guard.rules import PROBE_RULES
from selftrain.types import Places, ScoredGroup

NONE: Mapping[str, Places] = {}
MAX_EXAMPLES = 2
SHORTEST = frozenset({"shortcut", "shrinking"})
OF_PROBES = frozenset(rule.name for rule in PROBE_RULES) - {"estranged"}
"""rules whose examples are completions of a probe: those of training say nothing of what they find"""
TOLD = OF_PROBES | {"together"}
"""findings whose examples may be of a probe"""
UNREAD = frozenset({"unread", "noise", "repetition"})


def examples_of(rule: str, scored: Sequence[ScoredGroup], telling: Mapping[str, Places]) -> Places:
    """Up to two completions.

    For rules about probes those that `telling` names, none in a step without a probe. For rules about length the shortest that won, for noise the first that
    could not be read, for collisions and all others winners: of the groups that share the step's most common winner where several do, else of the groups that
    agree most.
    """
    if rule in OF_PROBES:
        return tuple(telling.get(rule, ()))
    places = shortest(scored) if rule in SHORTEST else unread(scored) if rule in UNREAD else typical(scored)
    return tuple(place for place, _ in zip(places, range(MAX_EXAMPLES), strict=False))


def shortest(scored: Sequence[ScoredGroup]) -> Iterator[tuple[int, int]]:
    found = [(len(one.voted.group.completions[at].token_ids), one.voted.group.index, at) for one in scored if (at := first_winner(one)) is not None]
    return ((group, at) for _, group, at in sorted(found))


def unread(scored: Sequence[ScoredGroup]) -> Iterator[tuple[int, int]]:
    for one in scored:
        for at, key in enumerate(one.voted.answers.keys):
            if key is None:
                yield one.voted.group.index, at
                break


def typical(scored: Sequence[ScoredGroup]) -> Iterator[tuple[int, int]]:
    winners = Counter(one.voted.vote.winner for one in scored)
    found = [
        (-winners[one.voted.vote.winner], -one.voted.vote.share_frac, one.voted.group.index, at) for one in scored if (at := first_winner(one)) is not None
    ]
    return ((group, at) for _, _, group, at in sorted(found))


def first_winner(one: ScoredGroup) -> int | None:
    """The first completion with the winner of a vote that is no tie."""
    winner = one.voted.vote.winner
    return None if winner is None else one.voted.answers.keys.index(winner)
