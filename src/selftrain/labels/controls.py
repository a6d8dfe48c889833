"""Controls: rewards that know nothing of the answer. What a run gains beside them is what its label source taught (Spurious Rewards, arXiv 2506.10947).

None of them names a pseudo-label: they give the rewards themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from selftrain.labels.majority import majority
from selftrain.labels.rules import Bounds
from selftrain.reward import unrewarded
from selftrain.seeds import Stream
from selftrain.types import Label, Outcome, VotedGroup

RANDOM_FRAC = 0.5


class Random:
    """r_i = 1 with probability 1/2, from the named stream of the completion.

    It looks at nothing: unreadable and truncated completions are drawn like the others, or it would reward the format.
    """

    def __init__(self, seeds: Stream) -> None:
        self._seeds = seeds.at(stream="random reward")

    def __call__(self, voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG002
        return [self._one(one) for one in voted]

    def _one(self, one: VotedGroup) -> Label:
        group = one.group
        stream = self._seeds.at(branch=group.completions[0].version.branch, step=group.step, prompt_id=group.prompt.id)

        def value(index: int) -> tuple[float, str]:
            return (1.0, "drawn_1") if stream.at(index=index).generator().random() < RANDOM_FRAC else (0.0, "drawn_0")

        return given(one, ("random", "draw"), value)


def format_only(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:  # noqa: ARG001
    """r_i = 1 for every completion with a readable answer, whatever it says."""
    return [readable(one) for one in voted]


def readable(one: VotedGroup) -> Label:
    def value(index: int) -> tuple[float, str]:
        no = unrewarded(one, index)
        return (0.0, no) if no else (1.0, "readable")

    return given(one, ("format_only", "format"), value)


def inverted(voted: Sequence[VotedGroup], bounds: Bounds) -> list[Label]:
    """r_i = 1 - 1[answer = majority] for readable answers: every minority answer is rewarded alike. Undecided where the majority is."""
    return [invert(one, label) for one, label in zip(voted, majority(voted, bounds), strict=True)]


def invert(one: VotedGroup, label: Label) -> Label:
    if not label.is_decided:
        return replace(label, source="inverted")

    def value(index: int) -> tuple[float, str]:
        if no := unrewarded(one, index):
            return 0.0, no
        return (0.0, "match") if one.answers.keys[index] == label.key else (1.0, "mismatch")

    return given(one, ("inverted", label.decided_by), value)


def given(one: VotedGroup, who: tuple[str, str], value: Callable[[int], tuple[float, str]]) -> Label:
    """A decided label without a key. who: source and decided_by. value: index of a completion -> its reward and why."""
    num = one.vote.num_votes
    values, notes = zip(*map(value, range(num)), strict=True)
    return Label(Outcome.DECIDED, (None,) * num, *who, values=values, notes=notes)
