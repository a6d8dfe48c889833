"""Novelty-split vote: the majority is rewarded, and on each side of it what is unlike the others more (EVOL-RL, arXiv 2509.15194).

    S(i, j) = |G_i & G_j| / |G_i | G_j|, G_i the set of character n-grams of completion i      (the paper: cosine of embeddings)
    novelty_i = 1 - (m * mean of S(i, j) over the others of its side + (1 - m) * max of S(i, j) over all other readable completions)
    u_i in [0, 1]: rank of its novelty inside its side, ties sharing their mean rank; 1/2 for a side of one
    r_i = 0.5 + 0.5 u_i where the answer is the majority, -1 + 0.5 u_i where it is another one, -1 where there is none

Unread and truncated completions get -1, as in the paper, and not 0: next to wrong answers at -1 to -0.5 a reward of 0 would teach to write no answer.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace

from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.reward import unrewarded
from selftrain.types import Label, VotedGroup


def gram_sets(texts: Sequence[str], size: int) -> list[int]:
    """The set of character n-grams of each text, as the bits of a number; one bit per n-gram of the group. A shorter text is one n-gram."""
    places: dict[str, int] = {}
    found = []
    for text in texts:
        grams = {text[at : at + size] for at in range(max(1, len(text) - size + 1))}
        found.append([places.setdefault(gram, len(places)) for gram in sorted(grams)])
    sets = []
    for bits in found:
        flags = bytearray(len(places) // 8 + 1)
        for bit in bits:
            flags[bit // 8] |= 1 << bit % 8
        sets.append(int.from_bytes(flags, "little"))
    return sets


def overlap(a: int, b: int) -> float:
    """Shared n-grams over all n-grams of both, in [0, 1]."""
    return (a & b).bit_count() / (a | b).bit_count()


def ranks(values: Sequence[float]) -> list[float]:
    """Each value's rank in [0, 1], the largest 1; equal values share their mean rank; 1/2 for a single one."""
    if len(values) == 1:
        return [0.5]
    ordered = sorted(values)
    return [(bisect_left(ordered, value) + bisect_right(ordered, value) - 1) / 2 / (len(values) - 1) for value in values]


class Novelty:
    """size: n of the n-grams. mean_frac: m, the part of the mean similarity against the largest one."""

    def __init__(self, size: int, mean_frac: float) -> None:
        self._size, self._mean_frac = size, mean_frac

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
        """Undecided where the majority is."""
        return [self._one(one, label) for one, label in zip(voted, majority(voted, bounds), strict=True)]

    def _one(self, one: VotedGroup, label: Label) -> Label:
        if not label.is_decided:
            return replace(label, source="novelty")
        reasons = [unrewarded(one, index) for index in range(one.vote.num_votes)]
        readable = [index for index, reason in enumerate(reasons) if not reason]
        sides = [[index for index in readable if (one.answers.keys[index] == label.key) == wanted] for wanted in (True, False)]
        sets = dict(zip(readable, gram_sets([one.group.completions[index].text for index in readable], self._size), strict=True))
        values, notes = [-1.0] * len(reasons), list(reasons)
        for side, lowest, note in zip(sides, (0.5, -1.0), ("match", "mismatch"), strict=True):
            for index, rank in self._ranked(side, sets).items():
                values[index], notes[index] = lowest + 0.5 * rank, note
        return replace(label, source="novelty", values=tuple(values), notes=tuple(notes))

    def _ranked(self, side: Sequence[int], sets: Mapping[int, int]) -> Mapping[int, float]:
        """Rank of the novelty of each completion of a side, by index. sets: the n-grams of all readable ones."""
        if not side:
            return {}
        novelties = [self._novelty(index, side, sets) for index in side]
        return dict(zip(side, ranks(novelties), strict=True))

    def _novelty(self, index: int, side: Sequence[int], sets: Mapping[int, int]) -> float:
        similar = {other: overlap(sets[index], sets[other]) for other in sets if other != index}
        near = sorted(similar[other] for other in side if other != index)
        mean = sum(near) / len(near) if near else 0.0
        return 1 - (self._mean_frac * mean + (1 - self._mean_frac) * max(similar.values(), default=0.0))
