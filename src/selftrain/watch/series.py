"""Curves cut down to what a screen can show."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

MAX_POINTS = 600
Row = tuple[int, Mapping[str, float]]


def columns(rows: Sequence[Row], max_points: int = MAX_POINTS) -> dict[str, Any]:
    """(step, values) rows -> `steps` and for each key a list beside it, None where a step has no value; at most about `max_points` long.

    A longer curve is cut into equal stretches, and of each stretch every key keeps its lowest and its highest value, in the order in which they came: no
    peak is lost. They stand at the first and the last step of the stretch, whichever steps they are of. `decimated` says so, and `stretches` has the first
    and the last step of each. The first and the last row are stretches of their own.
    """
    keys = sorted({key for _, values in rows for key in values})
    if len(rows) <= max_points:
        return {
            "steps": [step for step, _ in rows],
            "values": {key: [finite(values.get(key)) for _, values in rows] for key in keys},
            "decimated": False,
            "stretches": [],
        }
    size = math.ceil(2 * len(rows) / max(1, max_points - 2))
    stretches = [rows[:1], *(rows[at : min(at + size, len(rows) - 1)] for at in range(1, len(rows) - 1, size)), rows[-1:]]
    return {
        "steps": [step for part in stretches for step in (part[0][0], part[-1][0])[: len(part)]],
        "values": {key: [value for part in stretches for value in extremes([finite(values.get(key)) for _, values in part])] for key in keys},
        "decimated": True,
        "stretches": [[part[0][0], part[-1][0]] for part in stretches],
    }


def extremes(values: Sequence[float | None]) -> list[float | None]:
    """The lowest and the highest value in the order in which they came; one entry for a stretch of one."""
    known = [(value, at) for at, value in enumerate(values) if value is not None]
    if not known:
        return [None] * min(2, len(values))
    low, high = min(known), max(known, key=lambda one: (one[0], -one[1]))
    kept: list[float | None] = [value for value, _ in sorted((low, high), key=lambda one: one[1])]
    return kept[: len(values)]


def finite(value: float | None) -> float | None:
    """A number that JSON can hold, else None."""
    return value if value is not None and math.isfinite(value) else None


def spark(values: Sequence[float | None], points: int = 40) -> list[float]:
    """A short curve of means, for a list of runs."""
    known = [value for value in values if value is not None]
    size = max(1, -(-len(known) // points))
    return [sum(part) / len(part) for part in (known[at : at + size] for at in range(0, len(known), size))]
