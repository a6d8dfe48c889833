"""A run from start to end: its folder, its evaluations, its checkpoints, what is handed over; and how it is taken up again.

`start(config)` or `resume(folder)` gives a Run; iterating over `run.events()` does the work. Nothing here prints.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain import checkpoints
from selftrain.checkpoints import checkpoint_name
from selftrain.compose import (
    Problems,
    check_lengths,
    config_hash,
    header_of,
    load_policy,
    load_sets,
    make_labelling,
    make_reading,
    make_scorer,
    role_readers,
)
from selftrain.config import RunConfig
from selftrain.config_load import validate_recorded
from selftrain.errors import LedgerError, RunFolderError
from selftrain.evals import Evaluation, evaluate
from selftrain.extras import Extras
from selftrain.guard import Guard
from selftrain.ledger import LedgerWriter, read
from selftrain.policies.base import Policy, SamplingParams
from selftrain.seeds import Stream
from selftrain.train import Parts, StepReport, train, vote_params
from selftrain.types import Action

START = "start"
"""name of the model as it was before the first step, among the things that can be handed over"""


@dataclass(frozen=True, slots=True)
class Evaluated:
    """Held-out problems were evaluated: `name` is before, step-N or after; `step` steps had been done."""

    name: str
    step: int
    evaluation: Evaluation


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended. reason: done, halted or interrupted. handed_over: name of the checkpoint (or `start`), path: its folder or the model's name.

    before and after are None without held-out problems; they never influenced the choice.
    """

    folder: Path
    reason: str
    steps: int
    head: str
    handed_over: str
    path: str
    before: Evaluation | None
    after: Evaluation | None


Event = Evaluated | StepReport | Outcome


class Run:
    """An open run. `stop()` ends it after the step in flight, with a checkpoint to resume from."""

    def __init__(self, config: RunConfig, folder: Path, problems: Problems, policy: Policy, ledger: LedgerWriter) -> None:
        self.config, self.folder, self.problems, self.policy, self.ledger = config, folder, problems, policy, ledger
        self.guard = Guard(config.guard)
        self.seeds = Stream(config.run.seed)
        self.steps_done = 0
        self.refused: tuple[checkpoints.Refused, ...] = ()
        self._stopping = False
        self._evaluations: dict[str, Evaluation] = {}

    def stop(self) -> None:
        self._stopping = True

    def events(self) -> Iterator[Event]:
        """Do the work: an evaluation before, a report per step, evaluations on the way, one after, the outcome last."""
        yield from self._evaluate("before", 0)
        yield from self._evaluate_if_due()
        reason = "done"
        for report in train(self.parts(), self.steps_done):
            self.steps_done = report.metrics.step + 1
            self.ledger.record_timing({"step": report.metrics.step, "seconds": dict(report.seconds)})
            yield report
            if report.verdict.action is Action.HALT:
                reason = "halted"
            elif self._stopping and self.steps_done < self.config.run.num_steps:
                yield self._interrupted()
                return
            else:
                yield from self._evaluate_if_due()
        yield from self._finish(reason)

    def parts(self) -> Parts:
        """What the loop works with."""
        reading = make_reading(self.config, self.problems.train.questions)
        return Parts(
            config=self.config,
            policy=self.policy,
            prompts=self.problems.train,
            read=reading,
            label=make_labelling(self.config, self.problems.train.sheet),
            extras=Extras(self.policy, vote_params(self.config), role_readers(reading), self.seeds),
            scorer=make_scorer(self.config),
            guard=self.guard,
            ledger=self.ledger,
            checkpoint=self._checkpoint_if_due,
            seeds=self.seeds,
        )

    def _evaluate(self, name: str, step: int) -> Iterator[Evaluated]:
        """Evaluate unless there are no problems or a run before the interruption did so already."""
        if self.problems.held_out is None or name in self._evaluations:
            return
        section = self.config.evals
        params = SamplingParams(self.config.rollout.max_new_tokens, section.temperature, section.top_p, stop=self.config.rollout.stop)
        # Every evaluation draws from the same streams: differences between them are paired.
        result = evaluate(self.policy, self.problems.held_out, params, section.num_samples, self.seeds.at(stream="eval"))
        self._evaluations[name] = result
        self.ledger.record_eval({"name": name, "step": step, "head": self.ledger.head, "evaluation": result.to_json()})
        yield Evaluated(name, step, result)

    def _evaluate_if_due(self) -> Iterator[Evaluated]:
        """The evaluation on the way that belongs to the steps done so far, if there is one and it is not recorded yet."""
        every = self.config.evals.every_steps
        if every and 0 < self.steps_done < self.config.run.num_steps and self.steps_done % every == 0:
            yield from self._evaluate(checkpoint_name(self.steps_done), self.steps_done)

    def _checkpoint_if_due(self, steps_done: int) -> None:
        self.steps_done = steps_done
        if steps_done % self.config.run.checkpoint_every_steps == 0 or steps_done == self.config.run.num_steps:
            self.ledger.append_checkpoint(steps_done, checkpoint_name(steps_done), self.policy.weights_hash())
            self._save()

    def _save(self) -> None:
        """Write a checkpoint of this moment and drop the oldest ones."""

        def write(folder: Path) -> None:
            self.policy.save(folder)
            self.policy.save_optimizer(folder)

        state = {"step": self.steps_done, "head": self.ledger.head, "version": str(self.policy.version), "guard": self.guard.state()}
        checkpoints.save(self.folder / "checkpoints", checkpoint_name(self.steps_done), write, state)
        checkpoints.prune(self.folder / "checkpoints", self.config.run.num_checkpoints, self._protected())

    def _healthiest(self) -> str:
        """The newest scheduled checkpoint, or while the guard sees harm the newest one older than the window it was first seen in; else `start`."""
        first = self.guard.harm_since_step
        limit = self.steps_done if first is None else first - self.config.guard.window_steps
        steps = [step for step in self._scheduled() if step <= limit]
        return checkpoint_name(max(steps)) if steps else START

    def _scheduled(self) -> list[int]:
        """Steps of the checkpoints that an uninterrupted run has too."""
        return [step for step in checkpoint_steps(self.folder) if step % self.config.run.checkpoint_every_steps == 0 or step == self.config.run.num_steps]

    def _protected(self) -> set[str]:
        """Checkpoints that a finding at this or a later step could hand over: those of the last window and the newest one before it."""
        edge = self.steps_done - self.config.guard.window_steps
        older = [step for step in self._scheduled() if step <= edge]
        return {self._healthiest(), *(checkpoint_name(step) for step in self._scheduled() if step > edge), *(checkpoint_name(step) for step in older[-1:])}

    def _interrupted(self) -> Outcome:
        self._save()
        self.ledger.close()
        before = self._evaluations.get("before")
        name = checkpoint_name(self.steps_done)
        return Outcome(self.folder, "interrupted", self.steps_done, self.ledger.head, name, str(self.folder / "checkpoints" / name), before, None)

    def _finish(self, reason: str) -> Iterator[Event]:
        """Evaluate what is handed over, then close the record: a run that is killed before that is taken up again and ends the same."""
        name = self._healthiest()
        if name == START:
            path = self.config.policy.model
            if before := self._evaluations.get("before"):
                self._evaluations["after"] = before
        else:
            path = str(self.folder / "checkpoints" / name)
            if name != checkpoint_name(self.steps_done):
                self.policy.load(Path(path))
            yield from self._evaluate("after", self.steps_done)
        self.ledger.append_end(reason, name)
        self.ledger.close()
        yield Outcome(self.folder, reason, self.steps_done, self.ledger.head, name, path, self._evaluations.get("before"), self._evaluations.get("after"))

    def take_up(self, checkpoint: checkpoints.Checkpoint | None, evaluations: Mapping[str, Evaluation]) -> None:
        """Go on from a checkpoint (None: from the start) with the evaluations that were already recorded."""
        self._evaluations.update(evaluations)
        if checkpoint is not None:
            self.refused = checkpoint.refused
            self.policy.load(checkpoint.path)
            self.guard.load(checkpoint.state["guard"])
            self.steps_done = int(checkpoint.state["step"])


def checkpoint_steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a run folder, ascending."""
    found = (re.fullmatch(r"step-(\d+)", path.name) for path in sorted((folder / "checkpoints").glob("step-*")))
    return [int(match.group(1)) for match in found if match]


def new_folder(config: RunConfig) -> Path:
    """The folder of a new run; a given name must be free. Raises RunFolderError."""
    parent = Path(config.run.folder)
    if config.run.name is None:
        number = 1
        while (parent / f"train-{number:04d}").exists():
            number += 1
        return parent / f"train-{number:04d}"
    folder = parent / config.run.name
    if folder.exists():
        raise RunFolderError(f"run folder {folder}", "it exists already", f"Go on with it by `selftrain resume {folder}`, or choose another --run.name.")
    return folder


def resolved(config: RunConfig) -> RunConfig:
    """The config with what depends on this machine written down: the number of threads."""
    if config.policy.num_threads is not None:
        return config
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return config.model_copy(update={"policy": config.policy.model_copy(update={"num_threads": threads})})


def start(config: RunConfig) -> Run:
    """A new run. Everything about prompts, model and options is checked before its folder is made."""
    config = resolved(config)
    folder = new_folder(config)
    problems = load_sets(config)
    make_labelling(config, problems.train.sheet)
    make_scorer(config)
    make_reading(config, problems.train.questions)
    policy = load_policy(config)
    check_lengths(config, policy, problems)
    header = header_of(config, problems, policy)
    return Run(config, folder, problems, policy, LedgerWriter.create(folder, header, environment(config)))


def environment(config: RunConfig) -> dict[str, Any]:
    """Where and with what a run was made: for people, outside the hash chain."""
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for package in ("selftrain", "torch", "transformers", "numpy", "pyarrow", "peft", "bitsandbytes", "vllm"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cwd": str(Path.cwd()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cores": os.cpu_count(),
        "device": config.policy.device,
        "packages": packages,
    }


def read_config(folder: Path) -> RunConfig:
    """The resolved config of a run, with its place. Raises RunFolderError when the folder is no run."""
    values = read(folder).header["config"]
    return validate_recorded({**values, "run": {**values["run"], "name": folder.name, "folder": str(folder.parent)}})


def resume(folder: Path) -> Run:
    """Take up a run that was killed or interrupted, from its newest sound checkpoint; steps after it are repeated and must match the record.

    Raises RunFolderError when it has ended already or when prompts, model or config are not those of its start.
    """
    config = read_config(folder)
    record = read(folder)
    if record.finished:
        raise RunFolderError(f"run {folder}", "it has ended", f"See `selftrain report {folder}`, or start a new run.")
    if not record.is_writable:
        why = f"its record has format {record.format}, which this version reads and does not write"
        raise RunFolderError(f"run {folder}", why, "Resume it with the version that began it, or start a new run.")
    if config_hash(config) != record.header["config_hash"]:
        raise RunFolderError(f"{folder / 'run.json'}", "its config is not the one the run was started with", "Undo the edit; a changed config is a new run.")
    at_home = relocated(config, Path(record.environment["cwd"]))
    problems = load_sets(at_home)
    policy = load_policy(at_home)
    header = header_of(config, problems, policy)
    for name, what in (
        ("prompts", "the training prompts"),
        ("held_out", "the held-out problems"),
        ("model_hash", "the model at the start"),
        ("key_version", "the answer keys"),
        ("outside_code", "the functions of yours that its config names"),
        ("answers_hash", "the reference answers"),
    ):
        if header[name] != record.header[name]:
            raise RunFolderError(f"run {folder}: {what}", "they are not those the run was started with", "Restore them, or start a new run.")
    found = checkpoints.load_latest(folder / "checkpoints")
    head = str(found.state["head"]) if found else None
    ledger = LedgerWriter.resume(folder, head, exact=header["class"] == "exact")
    run = Run(config, folder, problems, policy, ledger)
    run.take_up(found, recorded_evaluations(folder))
    return run


def relocated(config: RunConfig, home: Path) -> RunConfig:
    """Relative paths of a run resumed from another folder, seen from where it was started."""

    def seen(path: str | None) -> str | None:
        return str(home / path) if path and not Path(path).exists() and (home / path).exists() else path

    prompts = config.prompts.model_copy(update={"file": seen(config.prompts.file)})
    evals = config.evals.model_copy(update={"file": seen(config.evals.file)})
    return config.model_copy(update={"prompts": prompts, "evals": evals, "policy": config.policy.model_copy(update={"model": seen(config.policy.model)})})


def recorded_evaluations(folder: Path) -> dict[str, Evaluation]:
    """Evaluations of a run by name, the last record of each."""
    return {str(one["name"]): Evaluation.from_json(one["evaluation"]) for one in read(folder).evals()}


def train_to_end(config: RunConfig) -> Outcome:
    """Start a run and do it: the Python API's one call."""
    for event in start(config).events():
        if isinstance(event, Outcome):
            return event
    raise LedgerError("run", "it ended without an outcome", "Report this with the run folder.")
