"""The controls that `--controls` adds: the same run with another label source, but for options that no run with such a source can have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from selftrain.compose_correction import KEYLESS, OFF
from selftrain.compose_labels import OWN_REWARDS
from selftrain.config import RunConfig
from selftrain.remedies import UNBOUNDED

CONTROLS = ("random", "format_only", "inverted")
"""label sources that are no proxy of correctness: what a run gains with them is not due to its labels"""
REFERENCE = "reference"


def control_options(shared: RunConfig, name: str) -> dict[str, Any]:
    """By dotted name what the control of this name has instead of the shared options, its label source left out; empty where it is the same run.

    True answers as a control are the labelled gain, so they are all of them, and compared as they are.
    """
    found: dict[str, Any] = {}
    is_reference = name == REFERENCE
    if is_reference and shared.labels.clustering != "exact":
        found["labels.clustering"] = "exact"
    if shared.reward.rule != "match" and (name in OWN_REWARDS or (is_reference and shared.reward.rule == "share")):
        found["reward.rule"] = "match"
    if shared.correction.mode != OFF and name in KEYLESS:
        found["correction.mode"] = OFF
    if shared.guard.action == "roll_back" and shared.rollback.remedy == "higher_min_share" and name in UNBOUNDED:
        found["rollback.remedy"] = "lower_rate"
    found |= {f"step_share.{field}": None for field, value in shared.step_share if value is not None}
    if is_reference and shared.reference.frac != 1:
        found["reference.frac"] = 1.0
    return dict(sorted(found.items()))


def instead(shared: RunConfig, options: dict[str, Any]) -> tuple[str, ...]:
    """These options in words, beside what is shared. Example: ("reward.rule = match instead of share",)."""
    values = shared.model_dump()
    given = {name: values[name.partition(".")[0]][name.partition(".")[2]] for name in options}
    return tuple(f"{name} {'unset' if value is None else f'= {value}'} instead of {given[name]}" for name, value in options.items())


def control_words(rows: Iterable[tuple[str, tuple[str, ...]]]) -> str | None:
    """A sentence on what controls have instead of the shared options; None where that is nothing. rows: (source, what `instead` says of it)."""
    sources: dict[str, list[str]] = {}
    for source, said in dict(rows).items():
        if said:
            sources.setdefault(", ".join(said), []).append(source)
    listed = "; ".join(f"{', '.join(names)}: {said}" for said, names in sources.items())
    why = (
        "The controls differ from the shared options in more than their labels: in what no run with such labels can have, and a reference has all true answers."
    )
    return f"{why} {listed}." if listed else None
