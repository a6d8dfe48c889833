"""Which checkpoints of a run count, which of them a user should take, and which may not be deleted, from names, steps and what the guard held against them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from selftrain.checkpoints import place_of, state_of
from selftrain.errors import CheckpointError
from selftrain.guard import Doubts
from selftrain.ledger.objects import Place

START = "start"
"""name of the model as it was before the first step, among the things that can be handed over"""

VALIDATED = "validation-"
"""evaluations of checkpoints (or the start) on the validation problems are named by this and the checkpoint's name"""


class Known(dict[str, Doubts | None]):
    """What the guard held against checkpoints when each of a run's was made, by name; None where a checkpoint is damaged. Raises StorageError.

    overruled: (branch, steps done) where a person overruled it.
    """

    def __init__(self, folder: Place) -> None:
        super().__init__()
        self.folder = folder
        self.overruled: set[tuple[int, int]] = set()

    def __missing__(self, name: str) -> Doubts | None:
        try:
            self[name] = Doubts.loaded(state_of(self.folder / name)["guard"])
        except CheckpointError:
            self[name] = None
        return self[name]

    def when_made(self, name: str) -> Doubts | None:
        """What the guard knows that goes back to it: nothing where it was overruled there."""
        return Doubts() if place_of(name) in self.overruled else self[name]


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


def best_validated(names: Iterable[str], avgs: Mapping[str, float]) -> str:
    """Of the start and these checkpoints, oldest first, the one with the largest avg@k on the validation problems; the start, then the oldest, where two are
    equal. What a rollback left behind is as good as it was measured.

    avgs: by name; what was not measured is no candidate.
    """
    return max((START, *(name for name in names if name in avgs)), key=lambda name: avgs.get(name, float("-inf")))


def first_whole(chosen: Callable[[set[str]], str], checked: Callable[[str], object]) -> str:
    """The first of these choices that can be read. chosen: gives one that is not among those that cannot. checked: raises CheckpointError for those."""
    gone: set[str] = set()
    while (name := chosen(gone)) != START:
        try:
            checked(name)
            break
        except CheckpointError:
            gone.add(name)
    return name


def healthiest(there: Mapping[int, str], steps_done: int, doubts: Doubts, schedule: Schedule) -> str:
    """Of the scheduled checkpoints whose probe is not worse than the base's, while harm is seen of those older than the window before it, the newest with the
    largest support; or `start`.
    """
    limit = steps_done if doubts.harm_since_step is None else doubts.harm_since_step - schedule.window_steps
    return there.get(chosen_until(limit, there, doubts), START)


def needed(
    there: Mapping[int, str], steps_done: int, doubts: Doubts, schedule: Schedule, num_rollbacks: int, made_with: Callable[[str], Doubts | None]
) -> set[str]:
    """Checkpoints that the guard may hand over or go back to at this or a later step, after at most so many rollbacks more.

    A rollback gives the guard back what it knew when the checkpoint was made: from there on it chooses among those before that one, and otherwise than now.
    made_with: that knowledge, by name; None where it cannot be read, so that nothing goes back there.
    """
    found: set[str] = set()
    places: list[tuple[int, Doubts | None]] = [(steps_done, doubts)]
    for _ in range(num_rollbacks + 1):
        new: set[str] = set()
        for place, known in places:
            if known is not None:
                earlier = {steps: name for steps, name in there.items() if steps <= place}
                new |= {healthiest(earlier, place, known, schedule)} | protected(earlier, place, known, schedule)
        places = [(steps, made_with(name)) for steps, name in there.items() if name in new - found]
        found |= new
    return found - {START}


def protected(there: Mapping[int, str], steps_done: int, doubts: Doubts, schedule: Schedule) -> set[str]:
    """Checkpoints that a finding at this or a later step could hand over, or go back to, without a rollback before: those of the last window, and what would be
    handed over before it: harm may begin anywhere in the window, or be seen by the next probe only.
    """
    edge = steps_done - schedule.window_steps
    looked = 1 + max((one.step for one in doubts.supports if one.step < edge), default=edge - 1)
    older = {chosen_until(limit, there, doubts) for limit in (edge, looked)}
    return {name for steps, name in there.items() if steps > edge or steps in older}


def chosen_until(limit: int, there: Mapping[int, str], doubts: Doubts) -> int:
    """Steps done of the checkpoint that would be handed over, of those with at most so many; 0 for the start."""
    return doubts.best_of([steps for steps in sorted(there) if steps <= limit and doubts.allows(steps)])
