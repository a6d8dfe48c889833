"""Problems with true answers; the only place where a true answer is read unless the run's config asks for a labelled source.

before = evaluate(policy, held_out, SamplingParams(max_new_tokens=64), num_samples=16, seeds=Stream(0))
print(before.avg, before.maj, before.any_right)
"""

from __future__ import annotations

from selftrain.evals.bootstrap import Interval
from selftrain.evals.compare import AGAIN_MEASURES, GainedAndLost, gained_and_lost, paired_difference, problem_values
from selftrain.evals.evaluate import Progress, evaluate, true_answers
from selftrain.evals.evaluation import Evaluation, Example, ExampleCompletion, ProblemResult, VoteResult
from selftrain.evals.over_seeds import Means, resample
from selftrain.evals.second_turn import SecondTurnResult, SecondTurns, SecondTurnSummary
from selftrain.evals.training import TrainingAccuracy, training_accuracy

__all__ = [
    "AGAIN_MEASURES",
    "Evaluation",
    "Example",
    "ExampleCompletion",
    "GainedAndLost",
    "Interval",
    "Means",
    "ProblemResult",
    "Progress",
    "SecondTurnResult",
    "SecondTurnSummary",
    "SecondTurns",
    "TrainingAccuracy",
    "VoteResult",
    "evaluate",
    "gained_and_lost",
    "paired_difference",
    "problem_values",
    "resample",
    "training_accuracy",
    "true_answers",
]
