"""Means over several runs that differ in their seed: the paired bootstrap over problems and seeds.

A resample draws as many seeds with replacement as there are, then for each drawn seed as many of its problems as it has. Where all seeds were evaluated on
the same problems, one draw of the problems goes for all of them. All values that are resampled together share the draws, so their differences and ratios are
paired. With one seed it is the bootstrap over problems alone and says nothing about other seeds.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from selftrain.evals.bootstrap import NUM_RESAMPLES, Interval
from selftrain.seeds import Stream

Floats = NDArray[np.float64]
Name = TypeVar("Name", bound=Hashable)
_CELLS_AT_ONCE = 2_000_000


@dataclass(frozen=True, slots=True)
class Means:
    """value: the mean over seeds of the mean over problems. resampled: the same of each of NUM_RESAMPLES resamples."""

    value: float
    resampled: Floats

    @property
    def interval(self) -> Interval:
        low, high = np.percentile(self.resampled, [2.5, 97.5])
        return Interval(self.value, float(low), float(high))

    def minus(self, other: Means) -> Means:
        """The paired difference to what was resampled together with it."""
        return Means(self.value - other.value, self.resampled - other.resampled)

    def share_of(self, whole: Means) -> Interval | None:
        """The paired ratio of two gains; None unless the interval of the whole lies above 0: a share of nothing is no number."""
        if not whole.interval.low > 0:
            return None
        kept = whole.resampled > 0
        low, high = np.percentile(self.resampled[kept] / whole.resampled[kept], [2.5, 97.5])
        return Interval(self.value / whole.value, float(low), float(high))


def resample(values: Mapping[Name, Sequence[Sequence[float]]], same_problems: bool) -> dict[Name, Means]:
    """Means of each name's values: one row per seed, one value per problem, the same seeds and problems under every name. ValueError without values."""
    names = list(values)
    if not names or not values[names[0]]:
        raise ValueError("there is nothing to take a mean of")
    seeds = [np.array([values[name][seed] for name in names], dtype=np.float64) for seed in range(len(values[names[0]]))]
    means = np.mean([table.mean(axis=1) for table in seeds], axis=0)
    resampled = np.concatenate([sum_of(seeds, drawn) for drawn in _draws([table.shape[1] for table in seeds], same_problems)], axis=1)
    return {name: Means(float(means[at]), resampled[at]) for at, name in enumerate(names)}


def sum_of(seeds: Sequence[Floats], drawn: Sequence[Floats]) -> Floats:
    """Means of resamples: (names, problems) of each seed and (resamples, problems) of each seed, how much each problem weighs -> (names, resamples)."""
    return np.asarray(np.sum([table @ weights.T for table, weights in zip(seeds, drawn, strict=True)], axis=0))


def _draws(sizes: Sequence[int], same_problems: bool) -> Iterator[list[Floats]]:
    """For NUM_RESAMPLES resamples in pieces: for each seed (resamples, problems), the weights of its problems; those of one resample sum to 1."""
    generator = Stream(0, stream="bootstrap over seeds").generator()
    num_seeds = len(sizes)
    for first in range(0, NUM_RESAMPLES, size := max(1, _CELLS_AT_ONCE // max(sizes))):
        rows = min(size, NUM_RESAMPLES - first)
        times = generator.multinomial(num_seeds, np.full(num_seeds, 1 / num_seeds), size=rows)
        if same_problems:
            shared = generator.multinomial(sizes[0], np.full(sizes[0], 1 / sizes[0]), size=rows) / sizes[0]
            yield [times[:, seed, None] / num_seeds * shared for seed in range(num_seeds)]
        else:
            yield [generator.multinomial(times[:, seed] * n, np.full(n, 1 / n)) / (n * num_seeds) for seed, n in enumerate(sizes)]
