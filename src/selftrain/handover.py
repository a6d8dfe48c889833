"""Which checkpoints of a run count, which of them a user should take, and which may not be deleted: pure functions of names and steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from selftrain.checkpoints import place_of

START = "start"
"""name of the model as it was before the first step, among the things that can be handed over"""


@dataclass(frozen=True, slots=True)
class Schedule:
    """When checkpoints are due, and over how many steps the guard looks."""

    every_steps: int
    num_steps: int
    window_steps: int

    def is_due(self, steps_done: int) -> bool:
        return steps_done % self.every_steps == 0 or steps_done == self.num_steps


def scheduled(names: Iterable[str], history: Mapping[int, tuple[int, int | None]], schedule: Schedule) -> dict[int, str]:
    """Steps done -> name, ascending, of the checkpoints that belong to a branch's history (`ledger.lineage`) and that an uninterrupted run has too."""
    found = {}
    for name in names:
        branch, steps = place_of(name) or (-1, -1)
        first, end = history.get(branch, (0, -1))
        if first < steps and (end is None or steps <= end) and schedule.is_due(steps):
            found[steps] = name
    return dict(sorted(found.items()))


def healthiest(there: Mapping[int, str], steps_done: int, harm_since_step: int | None, schedule: Schedule) -> str:
    """The newest of the scheduled checkpoints, or while the guard sees harm the newest one older than the window it was first seen in; else `start`."""
    limit = steps_done if harm_since_step is None else harm_since_step - schedule.window_steps
    return there[max(fit)] if (fit := [steps for steps in there if steps <= limit]) else START


def protected(there: Mapping[int, str], steps_done: int, schedule: Schedule) -> set[str]:
    """Checkpoints that a finding at this or a later step could hand over: those of the last window and the newest one before it."""
    edge = steps_done - schedule.window_steps
    older = [steps for steps in there if steps <= edge]
    return {there[steps] for steps in [*older[-1:], *(steps for steps in there if steps > edge)]}
