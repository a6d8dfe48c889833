"""95 % intervals of means and ratios over problems, by resampling the problems."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from selftrain.seeds import Stream

NUM_RESAMPLES = 10_000
_CELLS_AT_ONCE = 2_000_000
_CELLS_KEPT = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its 95 % interval, `low <= high`, in the unit of the estimate."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"

    @property
    def excludes_zero(self) -> bool:
        """Whether the whole interval is on one side of 0: a difference that chance does not explain."""
        return self.low > 0 or self.high < 0


def mean_interval(values: Sequence[float]) -> Interval:
    """The mean of one value per problem. ValueError without values.

    Percentiles 2.5 and 97.5 of the means of 10,000 resamples with replacement. The same values always give the same interval: the stream is fixed.
    Where all values are equal it has no width, however few they are.
    """
    if not len(values):
        raise ValueError("there is nothing to take a mean of")
    array = np.asarray(values, dtype=np.float64)
    low, high = np.percentile(resampled_sums(array[None])[0] / len(array), [2.5, 97.5])
    return Interval(float(array.mean()), float(low), float(high))


def ratio_interval(tops: Sequence[float], bottoms: Sequence[float]) -> Interval:
    """sum(tops) / sum(bottoms) over problems, bottoms >= 0; resamples whose bottoms sum to 0 are left out. ValueError when all of them do."""
    top, bottom = np.asarray(tops, dtype=np.float64), np.asarray(bottoms, dtype=np.float64)
    if not bottom.sum() > 0:
        raise ValueError("there is nothing to take a mean of")
    sums = resampled_sums(np.stack([top, bottom]))
    ratios = sums[0][sums[1] > 0] / sums[1][sums[1] > 0]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return Interval(float(top.sum() / bottom.sum()), float(low), float(high))


def resampled_sums(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums over resampled problems: (rows, problems) -> (rows, NUM_RESAMPLES). The rows of a resample hold the same problems.

    Drawing n problems with replacement is a multinomial draw of how often each distinct column comes; there are only k + 1 of them for avg@k.
    """
    columns, counts = np.unique(values, axis=1, return_counts=True)
    times = tuple(int(count) for count in counts)
    drawn = _kept_draws(times) if NUM_RESAMPLES * len(times) <= _CELLS_KEPT else _draws(times)
    return np.concatenate([columns @ part.T for part in drawn], axis=1)


def _draws(counts: Sequence[int]) -> Iterator[NDArray[np.int64]]:
    """How often each of these columns comes in each resample, (resamples, columns), in parts of bounded size."""
    total = sum(counts)
    chances, generator = np.asarray(counts) / total, Stream(0, stream="bootstrap").generator()
    for first in range(0, NUM_RESAMPLES, size := max(1, _CELLS_AT_ONCE // len(counts))):
        yield generator.multinomial(total, chances, size=min(size, NUM_RESAMPLES - first))


@lru_cache(maxsize=2)
def _kept_draws(counts: tuple[int, ...]) -> tuple[NDArray[np.int64], ...]:
    """The same, kept: probe after probe asks for the same ones, and they take four times as long as the sums."""
    return tuple(_draws(counts))
