"""Evaluations as rows of a table, two side by side with their paired differences."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.errors import PromptError
from selftrain.evals import Evaluation, Interval, paired_difference


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of two evaluations, in [0, 1]. difference: after minus before, paired; None where there is none."""

    name: str
    before: Interval | None
    after: Interval | None
    difference: Interval | None


def measures(evaluation: Evaluation) -> dict[str, Interval | None]:
    """avg@k, maj@k, pass@k and pseudo-label accuracy, by the name that is shown."""
    k = evaluation.num_samples
    return {
        f"avg@{k}": evaluation.avg,
        f"maj@{k}": evaluation.maj,
        f"pass@{k}": evaluation.any_right,
        "pseudo-label accuracy": evaluation.pseudo_label_accuracy,
    }


def rows(before: Evaluation, after: Evaluation | None) -> tuple[Row, ...]:
    """The outcome table; without `after` its columns are empty."""
    first, second = measures(before), measures(after) if after else {}
    pairs = differences(before, after) if after else {}
    return tuple(Row(name, value, second.get(name), pairs.get(name)) for name, value in first.items())


def differences(before: Evaluation, after: Evaluation) -> dict[str, Interval]:
    """Paired differences (after minus before) of avg, maj and pass@k; empty when the two did not judge the same problems with the same k."""
    if before.num_samples != after.num_samples:
        return {}
    try:
        return {f"{name}@{before.num_samples}": paired_difference(before, after, name) for name in ("avg", "maj", "pass")}
    except PromptError:
        return {}
