"""A model's name and a config -> Evaluation: what `selftrain evaluate` and the Python API do."""

from __future__ import annotations

from pathlib import Path

from selftrain import kept_checkpoints
from selftrain.checkpoints import verify_checkpoint
from selftrain.compose import load_policy, load_sets
from selftrain.compose_correction import check_second_turns, second_turns
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, PromptError, RunFolderError, SelftrainError
from selftrain.evals import Evaluation, Progress
from selftrain.evals import evaluate as evaluate_sampler
from selftrain.handover import START
from selftrain.ledger.objects import place
from selftrain.ledger.storage import read_bytes
from selftrain.policies.base import Policy, SamplingParams
from selftrain.policies.toy import is_toy
from selftrain.prompts import check_disjoint, load_problems
from selftrain.report import RunRecord, read_record
from selftrain.run_folder import relocated
from selftrain.seeds import Stream
from selftrain.types import PromptSet


def evaluate(config: RunConfig, model: str | None = None, progress: Progress | None = None) -> Evaluation:
    """`model` on the config's held-out problems, as [evals] says: a name as in policy.model, or a run folder for what it hands over.

    Unset: policy.model. The draws are those of a run with the same seed, so models are compared on common random numbers and a run's own evaluations
    are repeated. Raises ConfigError without problems, PromptError for problems without answers and for those that a run was trained on, ModelError,
    RunFolderError, and CheckpointError for a damaged checkpoint.
    """
    problems = problems_of(config)
    check_unseen(config, problems, model or config.policy.model)
    policy = policy_of(config, model or config.policy.model)
    section = config.evals
    params = SamplingParams(config.rollout.max_new_tokens, section.temperature, section.top_p, stop=config.rollout.stop)
    check_second_turns(config, policy, problems.prompts[0])
    again = second_turns(config, policy)
    return evaluate_sampler(policy, problems, params, section.num_samples, Stream(config.run.seed).at(stream="eval"), progress, again)


def policy_of(config: RunConfig, model: str) -> Policy:
    """The policy of a name or of a run folder. Checkpoints are complete models, but for the toy's, which are loaded into it."""
    if not is_run(model):
        return load_policy(named(config, model))
    record = read_record(place(model))
    start = relocated(record.config, Path(record.environment["cwd"])).policy.model
    if record.handed_over == START:
        return load_policy(named(config, start))
    checkpoint = whole_checkpoint(record)
    if not is_toy(start):
        return load_policy(named(config, str(checkpoint)))
    policy = load_policy(named(config, start))
    policy.load(checkpoint)
    return policy


def whole_checkpoint(record: RunRecord) -> Path:
    """What a run hands over, every byte checked. Raises RunFolderError, naming those that are there, when it is gone, CheckpointError when it is damaged."""
    folder = record.folder / "checkpoints"
    present = kept_checkpoints.names(folder)
    if record.handed_over not in present:
        there = (
            f"The run has {', '.join(present)}; `selftrain export --checkpoint` takes one of them out." if present else "Go back to a copy of the run folder."
        )
        raise RunFolderError(f"run {record.folder}, checkpoint {record.handed_over}", "what it hands over is not there any more", there)
    return verify_checkpoint(kept_checkpoints.on_disk(folder / record.handed_over)).path


def check_unseen(config: RunConfig, problems: PromptSet, model: str) -> None:
    """Raises PromptError where the model is a run that was trained on some of these problems. Where its prompts are not there any more, nobody can tell."""
    if not is_run(model):
        return
    record = read_record(place(model))
    try:
        train = load_sets(relocated(record.config, Path(record.environment["cwd"]))).train
    except SelftrainError:
        return
    try:
        check_disjoint(train, problems)
    except PromptError as error:
        most = record.config.evals.num_problems
        fewer = f"give --evals.num-problems {most} at most: so many were kept out of its training"
        is_more = config.evals.file is None and config.evals.num_problems > most
        raise PromptError(f"{error.given}, run {model}", error.why, fewer if is_more else error.do) from error


def is_run(model: str) -> bool:
    """Whether a model's name is the folder or the URL of a run."""
    return ("://" in model or Path(model).is_dir()) and read_bytes(place(model) / "run.json") is not None


def named(config: RunConfig, model: str) -> RunConfig:
    return config.model_copy(update={"policy": config.policy.model_copy(update={"model": model, "lora_rank": None})})


def problems_of(config: RunConfig) -> PromptSet:
    """The held-out problems. Raises ConfigError when the config names none."""
    held_out = load_sets(config).held_out if is_toy(config.policy.model) else load_problems(config.evals, config.prompts, config.run.seed)
    if held_out is None:
        raise ConfigError("evals.file and evals.task", "neither is given, so there is nothing to evaluate on", "Give --evals.file FILE or --evals.task TASK.")
    return held_out
