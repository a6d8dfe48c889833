"""What the guard remembers of the looks at the start's support: the one that later ones are compared with, and the newest one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from selftrain.guard.window import Signals, Steps, mean

SHARE = "vote/share_mean_frac"
SUPPORT, SUPPORT_ERROR, START_SHARE = "support/base_share_frac", "support/error_frac", "support/start_share_frac"
ROOM = "room"
"""how much support sharpening alone can still bring, fraction"""
LEAST_WAY_FRAC = 0.05
"""votes that agree in all but this can become no surer: what is left is the chance of a few prompts"""


class Looks:
    """`known`: up to two looks, each with `SUPPORT`, its `SUPPORT_ERROR` and, once it is there, the mean share of votes around it (`SHARE`); the first one with
    `ROOM` as well, where the start said how far its support can go.

    A policy that only becomes surer of what its start says most often raises the share of its votes to 1, and its support to the share that the start's most
    frequent answers have: that minus the start's own support is the room. When measuring starts anew, the newest look is the first one, with what is left.
    """

    def __init__(self, known: Iterable[Signals] = ()) -> None:
        self.known: list[dict[str, float]] = [dict(look) for look in known]

    @property
    def is_complete(self) -> bool:
        """Whether the newest look can be compared."""
        return len(self.known) == 2 and ROOM in self.known[0] and all(SHARE in look for look in self.known)

    def see(self, values: Signals, recent: Steps, first: Steps | None) -> None:
        """The values of a step, the last steps with it, and the first steps once they are all there: their share goes with a first look among them. Fractions
        that are none are not looked at.
        """
        if all(0.0 <= values.get(key, -1.0) <= 1.0 for key in (SUPPORT, SUPPORT_ERROR)):
            look = {key: values[key] for key in (SUPPORT, SUPPORT_ERROR)}
            if self.known:
                self.known = [self.known[0], {**look, **share_of(recent)}]
            else:
                room = {ROOM: max(0.0, values[START_SHARE] - look[SUPPORT])} if 0.0 <= values.get(START_SHARE, -1.0) <= 1.0 else {}
                self.known = [{**look, **room, **(share_of(recent) if first else {})}]
        if self.known and first and SHARE not in self.known[0]:
            self.known = [{**self.known[0], **share_of(first)}, *self.known[1:]]

    def start_over(self) -> None:
        """The newest look is what later ones are compared with, and its share is measured anew."""
        if self.known:
            room = {ROOM: self.known[0][ROOM] * (1.0 - surer(*self.known) if self.is_complete else 1.0)} if ROOM in self.known[0] else {}
            self.known = [{**{key: self.known[-1][key] for key in (SUPPORT, SUPPORT_ERROR)}, **room}]

    def state(self) -> list[dict[str, Any]]:
        return [dict(look) for look in self.known]


def surer(first: Signals, now: Signals) -> float:
    """How much of the way from the first share to 1 the votes have come, in [0, 1]."""
    return min(1.0, max(0.0, now[SHARE] - first[SHARE]) / max(LEAST_WAY_FRAC, 1.0 - first[SHARE]))


def share_of(steps: Steps) -> Mapping[str, float]:
    """The mean share of the votes of these steps, nothing where none has one, or one that is no fraction."""
    share = mean(steps, SHARE) if any(SHARE in step for step in steps) else -1.0
    return {SHARE: share} if 0.0 <= share <= 1.0 else {}
