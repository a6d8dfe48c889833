"""A model's name and a config -> Evaluation: what `selftrain evaluate` and the Python API do."""

from __future__ import annotations

from selftrain.compose import load_policy
from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.evals import Evaluation, Progress
from selftrain.evals import evaluate as evaluate_sampler
from selftrain.policies.base import SamplingParams
from selftrain.prompts import load_problems
from selftrain.seeds import Stream
from selftrain.types import PromptSet


def evaluate(config: RunConfig, model: str | None = None, progress: Progress | None = None) -> Evaluation:
    """`model` (unset: policy.model) on the config's held-out problems, as [evals] says.

    The draws are those of a run with the same seed, so two models are compared on common random numbers, and a run's own evaluations are repeated.
    Raises ConfigError without problems, PromptError for problems without answers, ModelError.
    """
    chosen = config.model_copy(update={"policy": config.policy.model_copy(update={"model": model or config.policy.model})})
    problems = problems_of(chosen)
    policy = load_policy(chosen)
    section = config.evals
    params = SamplingParams(config.rollout.max_new_tokens, section.temperature, section.top_p, stop=config.rollout.stop)
    return evaluate_sampler(policy, problems, params, section.num_samples, Stream(config.run.seed).at(stream="eval"), progress)


def problems_of(config: RunConfig) -> PromptSet:
    """The held-out problems. Raises ConfigError when the config names none."""
    if config.policy.model.startswith("toy"):
        from selftrain.compose import load_sets

        held_out = load_sets(config).held_out
    else:
        held_out = load_problems(config.evals, config.prompts, config.run.seed)
    if held_out is None:
        raise ConfigError("evals.file and evals.task", "neither is given, so there is nothing to evaluate on", "Give --evals.file FILE or --evals.task TASK.")
    return held_out
