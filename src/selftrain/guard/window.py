"""What a rule may look at: the first steps of the run, its last ones, and the probes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

LAST_PROBES, DOUBTED_PROBES = 3, 0.5
ROUNDED = 1e-6
KEPT, KEPT_TWICE = "probe/base_kept_frac", "kept_twice"
"""The other one stands among the best values alone: the mean of two probes one after the other, of the start at first."""
TRUTH = "label/truth_right_frac"
"""Among the best values: its largest mean over a window."""
Signals = Mapping[str, float]
Steps = Sequence[Signals]


@dataclass(frozen=True, slots=True)
class Window:
    """Numbers by metric key, label-free but for `TRUTH`, a mapping per step; a step need not have every key.

    baseline: the run's first steps. before, recent: the last two windows, the older one first. base, probe: the values of the first probe, which are the
    base model's own, and of the newest one; best: the largest of each so far, `KEPT_TWICE` and `TRUTH`. Without probes empty but for `TRUTH`, equal after one.
    probes: the last `LAST_PROBES` after the first one, the newest last. looks: of the start's support, the first and the newest one (`Looks`).
    Whoever asks for a key that is nowhere gets a KeyError, which a rule takes for: this signal is missing here.
    """

    baseline: Steps
    before: Steps
    recent: Steps
    base: Signals
    probe: Signals
    best: Signals
    probes: Steps = ()
    looks: Steps = ()

    def rise(self, key: str) -> float:
        """Mean over the recent steps minus mean over the first ones."""
        return mean(self.recent, key) - mean(self.baseline, key)

    def log_rise(self, key: str, floor: float) -> float:
        """Natural logarithm of (mean over the recent steps / mean over the first ones), both at least `floor`."""
        return log_ratio(mean(self.recent, key), mean(self.baseline, key), floor)

    def log_rise_but_for_one(self, key: str, floor: float) -> float:
        """As `log_rise`, of means over the steps that have at least `floor`, each without its largest: one step that stands out says nothing of the others."""
        now, first = (sorted(step[key] for step in steps if step.get(key, 0.0) >= floor) for steps in (self.recent, self.baseline))
        if not now or not first:
            raise KeyError(key)
        return math.log(fmean(now[:-1] or now) / fmean(first[:-1] or first))

    def speed(self, key: str, floor: float) -> float:
        """As `log_rise`, of the last window against the one before it."""
        return log_ratio(mean(self.recent, key), mean(self.before, key), floor)

    def moved(self, key: str) -> float:
        """A distance to the start at the newest probe, minus that at the first one, where a person overruled what was seen there: the start's own is 0, but for
        rounding.
        """
        before = self.base.get(key, 0.0)
        return self.probe[key] - (before if before > ROUNDED else 0.0)

    def lasting_rise(self, key: str) -> float:
        """Sum over the last n probes of (value - the base's own) / (n + 1/2): a few completions make these signals, so that one probe alone says less."""
        seen = sum(key in probe for probe in self.probes)
        return (mean(self.probes, key) - self.base[key]) * seen / (seen + DOUBTED_PROBES)

    def without_one(self) -> Iterator[tuple[int, Window]]:
        """For the jackknife: (size of the sample it left, the window without one of its steps)."""
        for at in range(len(self.baseline) if len(self.baseline) > 1 else 0):
            yield len(self.baseline), replace(self, baseline=[*self.baseline[:at], *self.baseline[at + 1 :]])
        for window in self.without_one_of_the_last():
            yield len(self.recent), window

    def without_one_of_the_last(self) -> Iterator[Window]:
        """The window without one of its last steps, each in turn."""
        for at in range(len(self.recent) if len(self.recent) > 1 else 0):
            yield replace(self, recent=[*self.recent[:at], *self.recent[at + 1 :]])


def mean(steps: Steps, key: str) -> float:
    """Mean over the steps that have the key; KeyError where none has it."""
    values = [step[key] for step in steps if key in step]
    if not values:
        raise KeyError(key)
    return sum(values) / len(values)


def log_ratio(value: float, other: float, floor: float) -> float:
    return math.log(max(floor, value) / max(floor, other))
