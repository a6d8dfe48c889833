"""A model's name and a config -> Evaluation: what `selftrain evaluate` and the Python API do."""

from __future__ import annotations

from pathlib import Path

from selftrain import kept_checkpoints
from selftrain.checkpoints import verify_checkpoint
from selftrain.compose import Problems, load_policy, load_sets, with_aside
from selftrain.compose_correction import check_second_turns, second_turns
from selftrain.config import RunConfig
from selftrain.errors import ConfigError, PromptError, RunFolderError, SelftrainError
from selftrain.evals import Evaluation, Progress
from selftrain.evals import evaluate as evaluate_sampler
from selftrain.handover import START
from selftrain.ledger.objects import Place, place
from selftrain.ledger.storage import read_bytes
from selftrain.policies.base import Policy, SamplingParams
from selftrain.policies.toy import is_toy
from selftrain.prompts import load_problems, load_prompts, prompt_set_hash
from selftrain.prompts.identity import same_texts
from selftrain.report import RunRecord, read_record
from selftrain.run_folder import relocated
from selftrain.seeds import Stream
from selftrain.types import PromptSet


def evaluate(config: RunConfig, model: str | Place | None = None, progress: Progress | None = None) -> Evaluation:
    """`model` on the config's held-out problems, as [evals] says: a name as in policy.model, or a run folder for what it hands over.

    Unset: policy.model. The draws are those of a run with the same seed, so models are compared on common random numbers and a run's own evaluations
    are repeated. Raises ConfigError without problems, PromptError for problems without answers and for those that a run was trained on, ModelError,
    RunFolderError, and CheckpointError for a damaged checkpoint.
    """
    problems, model = problems_of(config), str(model or config.policy.model)
    check_unseen(config, problems, model)
    return evaluate_on(problems, config, model, progress)


def evaluate_on(problems: PromptSet, config: RunConfig, model: str, progress: Progress | None = None) -> Evaluation:
    """As `evaluate`, on problems that are loaded and checked."""
    policy = policy_of(config, model)
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
    """Raises PromptError where the model is what a run made of some of these problems, by their text: ids of two files say nothing of each other.

    Where its prompts are not there any more, or other ones lie in their place, nobody can tell.
    """
    record = read_record(place(model)) if is_run(model) else None
    train = None if record is None or record.handed_over == START else trained_on(record)
    if record is None or train is None:
        return
    seen = list(same_texts(train, problems))
    if seen:
        most = record.config.evals.num_problems
        is_more = config.evals.file is None and config.evals.num_problems > most
        raise PromptError(
            f"held-out problems of {problems.origin}, run {model}",
            f"{len(seen)} of {len(problems)} are training prompts of the run: {', '.join(seen[:3])}{' ...' if len(seen) > 3 else ''}",
            f"give --evals.num-problems {most} at most: so many were kept out of its training"
            if is_more
            else "take them out: what was trained on cannot show what was learned",
        )


def trained_on(record: RunRecord) -> PromptSet | None:
    """The training prompts of a run; None where they cannot be had any more."""
    config = relocated(record.config, Path(record.environment["cwd"]))
    try:
        if config.prompts.task is not None or is_toy(config.policy.model):
            train = load_sets(config).train
        else:
            train = with_aside(config, Problems(load_prompts(config.prompts, config.run.seed), None)).train
    except SelftrainError:
        return None
    return train if prompt_set_hash(train) == record.header["prompts"]["hash"] else None


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
