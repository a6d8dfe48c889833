"""Which completions of a probe show what a rule about probes finds: their places in the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from selftrain.probes.probe_set import Kind
from selftrain.probes.signals import easy, of_kind, paired, translated
from selftrain.types import AnswerKey, Places, Vote, VotedGroup

MAX_PLACES = 2


def telling(groups: Sequence[VotedGroup], base: Mapping[str, Vote], canaries: Mapping[str, AnswerKey]) -> dict[str, Places]:
    """By rule, up to two completions, of different prompts. groups: of one probe. base: the start's votes by held-aside prompt. canaries: their right answers.

    Of `off_base` those without the answer that the start was sure of, of `deaf` those that keep the answer though a number is another one, of `rewording` and
    `bias` those that change it, of `canaries` wrong ones, of `probe_shortcut` the shortest.
    """
    own, winners = of_kind(groups, Kind.OWN), easy(base)
    swapped = ((translated(one, set(dict(other.vote.counts))), other) for one, other in paired(groups, Kind.SWAP))
    return {
        "off_base": places(((one, [winners[of]]) for of, one in own.items() if of in winners), others=True),
        "deaf": places(((other, one.vote.winners) for one, other in paired(groups, Kind.NUMBER)), others=False),
        "rewording": places(((other, one.vote.winners) for one, other in paired(groups, Kind.REWORD)), others=True),
        "bias": places(((other, vote.winners) for vote, other in swapped), others=True),
        "canaries": places(((one, [canaries[of]]) for of, one in of_kind(groups, Kind.CANARY).items() if of in canaries), others=True),
        "probe_shortcut": tuple((group, at) for _, group, at in sorted(map(shortest, own.values()))[:MAX_PLACES]),
    }


def places(pairs: Iterable[tuple[VotedGroup, Collection[AnswerKey]]], others: bool) -> Places:
    """Of the first groups that have one, the first completion with one of these answers, or with `others` with none of them."""
    found = []
    for one, answers in pairs:
        at = next((at for at, key in enumerate(one.answers.keys) if answers and (key in answers) != others), None)
        if at is not None:
            found.append((one.group.index, at))
    return tuple(found[:MAX_PLACES])


def shortest(one: VotedGroup) -> tuple[int, int, int]:
    """(tokens, group index, completion index) of the shortest completion."""
    return min((len(done.token_ids), one.group.index, at) for at, done in enumerate(one.group.completions))
