"""Two evaluations of the same problems: paired differences, problems gained and lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from selftrain.errors import PromptError
from selftrain.evals.bootstrap import Interval, mean_interval
from selftrain.evals.evaluation import CONFIDENT_SHARE_FRAC, Evaluation, ProblemResult, VoteResult, pass_estimate
from selftrain.evals.second_turn import SecondTurnResult

SOLVED_FRAC = 0.5
"""A problem's maj score from which on it counts as right."""
MOVED_FRAC = 0.5
"""A problem whose avg@k moved by at least this much was clearly gained or lost."""

MEASURES: dict[str, Callable[[Evaluation, ProblemResult], float]] = {
    "avg": lambda evaluation, result: result.num_right / evaluation.num_samples,
    "maj": lambda _, result: result.maj_score,
    "pass": lambda evaluation, result: pass_estimate(evaluation.num_samples, result.num_right, evaluation.num_samples),
    "confident_wrong": lambda _, result: float(result.vote is VoteResult.WRONG and result.share_frac >= CONFIDENT_SHARE_FRAC),
}
"""What can be compared of one problem: avg@k, maj@k, pass@k, and whether its vote is confidently wrong."""
AGAIN_MEASURES: dict[str, Callable[[Evaluation, SecondTurnResult], float]] = {
    "turn2": lambda evaluation, again: again.num_right / evaluation.num_samples,
    "maj_pairs": lambda _, again: again.maj_pairs,
    "maj_again": lambda _, again: again.maj_again,
}
"""The same where evaluations have a second turn: avg@k after it, and the two majorities of as many answers (`second_turn.py`)."""


@dataclass(frozen=True, slots=True)
class GainedAndLost:
    """Prompt ids, in the order of the problems.

    gained, lost: whose vote turned right, or wrong (maj score reaching 0.5, or falling under it).
    avg_gained, avg_lost: whose avg@k rose, or fell, by at least 0.5.
    """

    gained: tuple[str, ...]
    lost: tuple[str, ...]
    avg_gained: tuple[str, ...]
    avg_lost: tuple[str, ...]


def problem_values(evaluation: Evaluation, measure: str) -> list[float]:
    """One value per problem, of a measure of MEASURES, or of AGAIN_MEASURES where there was a second turn."""
    if measure in AGAIN_MEASURES:
        return [AGAIN_MEASURES[measure](evaluation, again) for again in evaluation.again]
    value = MEASURES[measure]
    return [value(evaluation, result) for result in evaluation.results]


def paired_difference(before: Evaluation, after: Evaluation, measure: str = "avg") -> Interval:
    """`after` minus `before` in a measure, in [-1, 1], with the paired bootstrap interval over problems.

    The problems' difficulty cancels, so it is sharper than two intervals side by side. PromptError unless both judged the same problems.
    """
    _pairs(before, after)
    return mean_interval([new - old for old, new in zip(problem_values(before, measure), problem_values(after, measure), strict=True)])


def gained_and_lost(before: Evaluation, after: Evaluation) -> GainedAndLost:
    """Which problems changed sides. PromptError unless both judged the same problems."""
    pairs = _pairs(before, after)
    moved = {old.prompt_id: MEASURES["avg"](after, new) - MEASURES["avg"](before, old) for old, new in pairs}
    return GainedAndLost(
        gained=tuple(old.prompt_id for old, new in pairs if old.maj_score < SOLVED_FRAC <= new.maj_score),
        lost=tuple(old.prompt_id for old, new in pairs if new.maj_score < SOLVED_FRAC <= old.maj_score),
        avg_gained=tuple(prompt_id for prompt_id, change in moved.items() if change >= MOVED_FRAC),
        avg_lost=tuple(prompt_id for prompt_id, change in moved.items() if change <= -MOVED_FRAC),
    )


def _pairs(before: Evaluation, after: Evaluation) -> list[tuple[ProblemResult, ProblemResult]]:
    """The results of each problem in both evaluations."""
    if before.prompts_sha256 != after.prompts_sha256 or [one.prompt_id for one in before.results] != [one.prompt_id for one in after.results]:
        raise PromptError(
            f"evaluations of {before.origin} ({len(before.results)} problems) and {after.origin} ({len(after.results)} problems)",
            "they judged different problems, so their difference mixes policies with problems",
            "evaluate both policies on one file, or on one task with one seed",
        )
    return list(zip(before.results, after.results, strict=True))
