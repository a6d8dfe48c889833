"""Evaluations as rows of a table, two side by side with their paired differences."""

from __future__ import annotations

from dataclasses import dataclass

from selftrain.errors import PromptError
from selftrain.evals import Evaluation, Interval, paired_difference

TURN_GAIN, MAJ_GAIN = "turn 2 - turn 1", "maj, half corrected - maj"
"""gain of a second turn over sampling again; of the vote of k/2 completions and their corrections over that of k completions"""


@dataclass(frozen=True, slots=True)
class Row:
    """One measure of two evaluations, in [0, 1]. difference: after minus before, paired; None where there is none."""

    name: str
    before: Interval | None
    after: Interval | None
    difference: Interval | None


def measures(evaluation: Evaluation) -> dict[str, Interval | None]:
    """avg@k, maj@k, pass@k and pseudo-label accuracy, by the name that is shown; and what the second turn is worth, where there was one."""
    k = evaluation.num_samples
    found = {
        f"avg@{k}": evaluation.avg,
        f"maj@{k}": evaluation.maj,
        f"pass@{k}": evaluation.any_right,
        "pseudo-label accuracy": evaluation.pseudo_label_accuracy,
    }
    second = evaluation.second_turn
    if second is None:
        return found
    return found | {turn2_name(k): second.turn2, TURN_GAIN: second.gain, MAJ_GAIN: second.maj_gain, "mended": second.mended, "broken": second.broken}


def turn2_name(num_samples: int) -> str:
    return f"turn 2 avg@{num_samples}"


def rows(before: Evaluation, after: Evaluation | None) -> tuple[Row, ...]:
    """The outcome table; without `after` its columns are empty."""
    first, second = measures(before), measures(after) if after else {}
    pairs = differences(before, after) if after else {}
    return tuple(Row(name, value, second.get(name), pairs.get(name)) for name, value in first.items())


def differences(before: Evaluation, after: Evaluation) -> dict[str, Interval]:
    """Paired differences (after minus before) of avg, maj and pass@k, and of avg@k after a second turn; empty when the two did not judge the same problems
    with the same k.
    """
    if before.num_samples != after.num_samples:
        return {}
    try:
        found = {f"{name}@{before.num_samples}": paired_difference(before, after, name) for name in ("avg", "maj", "pass")}
        if before.again and after.again:
            found[turn2_name(before.num_samples)] = paired_difference(before, after, "turn2")
        return found
    except PromptError:
        return {}
