"""A run from start to end: its folder, its evaluations, its checkpoints, what is handed over; and how it is taken up again.

`start(config)` or `resume(folder)` gives a Run; iterating over `run.events()` does the work. Nothing here prints.
"""

from __future__ import annotations

import shlex
from collections.abc import Collection, Generator, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain import checkpoints, control, handover, kept_checkpoints, remedies
from selftrain.checkpoints import checkpoint_name
from selftrain.compose import (
    Problems,
    Verify,
    as_recorded,
    check_header,
    check_held_out_answers,
    check_lengths,
    check_parts,
    environment_of,
    hash_of_options,
    header_of,
    load_policy,
    load_sets,
    make_labelling,
    make_reading,
    make_scorer,
    make_verification,
    role_readers,
)
from selftrain.compose_correction import make_correction, second_turns
from selftrain.compose_idle import check_new
from selftrain.compose_order import make_strata
from selftrain.compose_probes import make_prober
from selftrain.config import RunConfig
from selftrain.config_load import validate_recorded
from selftrain.errors import CheckpointError, LedgerError, RunFolderError
from selftrain.evals import Evaluation, evaluate
from selftrain.events import Evaluated as Evaluated
from selftrain.events import Outcome as Outcome
from selftrain.events import RolledBack as RolledBack
from selftrain.events import Taken
from selftrain.extras import Extras
from selftrain.guard import Guard
from selftrain.handover import START, VALIDATED, Schedule, first_whole
from selftrain.ledger import BranchRecord, LedgerWriter, lineage, read
from selftrain.ledger.objects import Place, place
from selftrain.measured import AFTER, BEFORE, Measured
from selftrain.policies.base import Policy, SamplingParams
from selftrain.run_folder import begun, environment, named, new_folder, relocated, resolved
from selftrain.seeds import Stream
from selftrain.taking_up import take_up_requests
from selftrain.train import Parts, StepReport, train, vote_params
from selftrain.types import Action, PromptSet, Verdict

ELSEWHERE = "the record it was made after is not in the ledger"

Event = Evaluated | StepReport | Taken | RolledBack | Outcome


class Run:
    """An open run. `stop()` ends it after the step in flight, with a checkpoint to resume from."""

    def __init__(self, config: RunConfig, folder: Place, problems: Problems, policy: Policy, ledger: LedgerWriter, verify: Verify) -> None:
        self.config, self.folder, self.problems, self.policy, self.ledger = config, folder, problems, policy, ledger
        self._verify = verify
        self.branch_config = remedies.branch_config(config, ledger.branches)
        self.guard = self._new_guard()
        self.labelling = make_labelling(self.branch_config, problems.train)
        self.prober = make_prober(config, problems.aside, policy)
        self.seeds = Stream(config.run.seed)
        self.steps_done = 0
        self.refused: tuple[checkpoints.Refused, ...] = ()
        self._schedule = Schedule(config.run.checkpoint_every_steps, config.run.num_steps, config.guard.window_steps)
        self.stopping = False
        self.measured = Measured(ledger)
        self.known = handover.Known(self.folder / "checkpoints")

    def stop(self) -> None:
        self.stopping = True

    def events(self) -> Iterator[Event]:
        """Do the work: an evaluation before, a report per step, evaluations on the way, one after, the outcome last.

        The run is given back when it ends, by an error or because nobody asks for the next event too: then `resume` takes it up, and this is refused."""
        if self.ledger.is_closed:
            why, do = "this Run was given back when its events ended or were left", "Take it up again with selftrain.resume(folder), unless it has ended."
            raise RunFolderError(f"the run {self.folder}", why, do)
        try:
            yield from self._work()
        finally:
            self.ledger.close()

    def _work(self) -> Iterator[Event]:
        yield from self._evaluate(BEFORE, 0)
        yield from self._validate(START, 0)
        reason = None
        while reason is None:
            reason = yield from self._stretch()
        if reason == "interrupted":
            yield self._interrupted()
        else:
            yield from self._finish(reason)

    def _stretch(self) -> Generator[Event, None, str | None]:
        """Steps in a row. Gives the reason why the run ends (done, halted, interrupted), or None when it goes on from another place, after a rollback."""
        branch = self.ledger.branch
        yield from self._between_steps()
        if self.ledger.branch == branch and not self.stopping:
            for report in train(self.parts(), self.steps_done):
                self.steps_done = report.metrics.step + 1
                self.ledger.record_timing({"step": report.metrics.step, "name": timing_name(branch), "seconds": dict(report.seconds)})
                yield report
                if report.verdict.action is Action.HALT:
                    return "halted"
                if report.verdict.action is Action.ROLL_BACK:
                    yield RolledBack(self._mend(report.verdict))
                    return None
                yield from self._between_steps()
                if self.stopping or self.ledger.branch != branch:
                    break
        if self.stopping and self.steps_done < self.config.run.num_steps:
            return "interrupted"
        return "done" if self.ledger.branch == branch else None

    def _between_steps(self) -> Iterator[Event]:
        """What may happen after a step and before the next: an evaluation, then requests from outside."""
        if not self.stopping:
            yield from self._evaluate_if_due()
            if self._schedule.is_due(self.steps_done) and self._begun < self.steps_done:
                yield from self._validate(self._name(), self.steps_done)
            yield from take_up_requests(self)

    def checkpoint(self, name: str) -> checkpoints.Checkpoint:
        """A checkpoint of this run by name. Raises CheckpointError when there is none or it is damaged."""
        if checkpoints.place_of(name) is None or name not in kept_checkpoints.names(self.folder / "checkpoints"):
            raise CheckpointError(f"the checkpoint {name}", "there is no checkpoint of that name", "choose one of those in the run folder, or `start`")
        return checkpoints.verify_checkpoint(kept_checkpoints.on_disk(self.folder / "checkpoints" / name))

    def roll_back(self, checkpoint: str, reason: str, who: str, remedy: remedies.Options | None = None) -> BranchRecord:
        """Go back to a checkpoint (or `start`) between two steps, and on from there on a new branch; in the ledger before it is done.

        Policy versions, seeds and checkpoint names carry the branch, so the steps that come are new ones, and what is left behind stays in the record.
        Killed at any moment, a resumed run finds the record and does it again. Raises CheckpointError when there is no such checkpoint or it is damaged.
        """
        found = None if checkpoint == START else self.checkpoint(checkpoint)
        parent, step = (0, 0) if found is None else checkpoints.place_of(checkpoint) or (0, 0)
        record = BranchRecord(self.ledger.branch + 1, parent, checkpoint, step, self.steps_done, reason, who, remedy or {})
        self.ledger.append_branch(record)
        self.branch_config = remedies.branch_config(self.config, self.ledger.branches)
        self.guard, self.labelling = self._new_guard(), make_labelling(self.branch_config, self.problems.train)
        if found is None:
            self.policy.restart()
            self.prober.load({})
        else:
            self.policy.load(found.path)
            self._remember(found.state, remedies.branch_config(self.config, self.ledger.branches[:parent]))
        self.known.overruled = control.overruled_steps(read(self.folder))
        if (parent, step) in self.known.overruled:
            self.guard.overrule()
        if remedies.changes_signals(self.ledger.branches, record):
            self.guard.start_over()
        self.policy.start_branch(record.branch)
        self.steps_done = step
        self._save()
        return record

    def _mend(self, verdict: Verdict) -> BranchRecord:
        """Obey the guard: back to the checkpoint that would be handed over now, with the remedy of the config."""
        remedy = remedies.remedy_of(
            self.branch_config, lambda: remedies.groups_so_far(self.folder, self.ledger.branches, self.steps_done), self.ledger.branches
        )
        return self.roll_back(self._healthy_and_whole(), "; ".join(one.words for one in verdict.findings), remedies.GUARD, remedy)

    def _healthy_and_whole(self) -> str:
        """The healthiest checkpoint that can be read; further back where one is damaged."""
        there = self._scheduled()
        return first_whole(lambda gone: self._healthiest({steps: one for steps, one in there.items() if one not in gone}), self.checkpoint)

    def _new_guard(self) -> Guard:
        return Guard(self.config.guard, self.config.rollback, remedies.by_guard(self.ledger.branches))

    def know_start(self, evaluation: Evaluation, source: str) -> None:
        """Take over the evaluation `before` of another run, `source`, whose model, problems and draws are the same, instead of making it again."""
        self.measured.add(BEFORE, 0, evaluation, taken_from=source)

    def parts(self) -> Parts:
        """What the loop works with."""
        config, branches = self.branch_config, self.ledger.branches
        reading = make_reading(config, self.problems.train.questions)
        seeds = self.seeds.at(branch=self.ledger.branch)
        return Parts(
            config=config,
            policy=self.policy,
            strata=make_strata(config, remedies.branch_prompts(self.problems.train, branches)),
            read=reading,
            verify=self._verify,
            label=self.labelling,
            correction=make_correction(config),
            extras=Extras(self.policy, replace(vote_params(config), certainties=False), role_readers(reading), seeds),
            probe=self.prober,
            scorer=make_scorer(config),
            guard=self.guard,
            ledger=self.ledger,
            checkpoint=self._checkpoint_if_due,
            seeds=seeds,
        )

    def _evaluate(self, name: str, step: int) -> Iterator[Evaluated]:
        """Evaluate unless there are no problems or a run before the interruption did so already."""
        return self._measure(name, step, self.problems.held_out, self.config.evals.num_samples)

    def _validate(self, checkpoint: str, step: int) -> Iterator[Evaluated]:
        """Measure what may be handed over, where the config names problems for it."""
        return self._measure(VALIDATED + checkpoint, step, self.problems.validation, self.config.validation.num_samples)

    def _measure(self, name: str, step: int, problems: PromptSet | None, num_samples: int) -> Iterator[Evaluated]:
        if problems is None or self.measured.get(name) is not None:
            return
        section = self.config.evals
        params = SamplingParams(self.config.rollout.max_new_tokens, section.temperature, section.top_p, stop=self.config.rollout.stop)
        # Every evaluation draws from the same streams: differences between them are paired.
        again = second_turns(self.config, self.policy) if problems is self.problems.held_out else None
        result = evaluate(self.policy, problems, params, num_samples, self.seeds.at(stream="eval"), again=again)
        self.measured.add(name, step, result)
        yield Evaluated(name, step, result)

    def _evaluate_if_due(self) -> Iterator[Evaluated]:
        """The evaluation on the way that belongs to the steps done so far, if there is one and it is not recorded yet."""
        every = self.config.evals.every_steps
        if every and self._begun < self.steps_done < self.config.run.num_steps and self.steps_done % every == 0:
            yield from self._evaluate(self._name(), self.steps_done)

    @property
    def _begun(self) -> int:
        """The step before the first one of this branch."""
        return lineage(self.ledger.branches, self.ledger.branch)[self.ledger.branch][0]

    def _name(self) -> str:
        """The name of a checkpoint of this moment."""
        return checkpoint_name(self.steps_done, self.ledger.branch)

    def _checkpoint_if_due(self, steps_done: int) -> None:
        self.steps_done = steps_done
        if self._schedule.is_due(steps_done):
            self.ledger.append_checkpoint(steps_done, self._name(), self.policy.weights_hash())
            self._save()

    def _save(self) -> None:
        """Write a checkpoint of this moment and drop the oldest ones."""

        def write(folder: Path) -> None:
            self.policy.save(folder)
            self.policy.save_optimizer(folder)

        state = {"step": self.steps_done, "head": self.ledger.head, "version": str(self.policy.version)}
        state |= {"guard": self.guard.state(), "labels": self.labelling.state(), "probes": self.prober.state()}
        kept_checkpoints.save(self.folder / "checkpoints", self._name(), write, state)
        self.known[self._name()] = self.guard.doubts
        self._prune(self.guard.rollbacks_left)

    def _prune(self, left: int, *more: str) -> None:
        """Drop the oldest checkpoints but `more` and those that may be handed over or gone back to, as often as `left`, and what killed processes left."""
        keep = handover.needed(self._scheduled(), self.steps_done, self.guard.doubts, self._schedule, left, self.known.when_made)
        keep |= {self._best_validated(), *more}
        kept_checkpoints.prune(self.folder / "checkpoints", self.config.run.num_checkpoints, keep)

    def _chosen(self) -> str:
        """The checkpoint a user should take, or `start`: the best on the validation problems where there are any, else the healthiest."""
        return self._healthiest(self._scheduled()) if self.problems.validation is None else first_whole(self._best_validated, self.checkpoint)

    def _best_validated(self, gone: Collection[str] = ()) -> str:
        """Of all on the disk; a checkpoint is measured as soon as it is made."""
        avgs = self.measured.validated()
        names = kept_checkpoints.names(self.folder / "checkpoints") if avgs else []
        return handover.best_validated((name for name in names if name not in gone), avgs)

    def _healthiest(self, there: Mapping[int, str]) -> str:
        """The checkpoint that the guard would hand over, without labels."""
        return handover.healthiest(there, self.steps_done, self.guard.doubts, self._schedule)

    def _scheduled(self) -> dict[int, str]:
        """Steps done -> name of the checkpoints on the disk that this branch may hand over."""
        history = lineage(self.ledger.branches, self.ledger.branch)
        return handover.scheduled(kept_checkpoints.names(self.folder / "checkpoints"), history, self._schedule)

    def _interrupted(self) -> Outcome:
        self._save()
        self.ledger.close()
        before = self.measured.get(BEFORE)
        name = self._name()
        return Outcome(self.folder, "interrupted", self.steps_done, self.ledger.head, name, str(self.folder / "checkpoints" / name), before, None)

    def _finish(self, reason: str) -> Iterator[Event]:
        """Evaluate what is handed over, then close the record: a run that is killed before that is taken up again and ends the same."""
        name, before = self._chosen(), self.measured.get(BEFORE)
        if name == START:
            path, after = self.config.policy.model, before
        else:
            path = str(self.folder / "checkpoints" / name)
            if name != self._name():
                self.policy.load(kept_checkpoints.on_disk(self.folder / "checkpoints" / name))
            yield from self._evaluate(AFTER, self.steps_done)
            after = self.measured.get(AFTER)
        self._prune(0, name)
        self.ledger.append_end(reason, name)
        self.ledger.close()
        yield Outcome(self.folder, reason, self.steps_done, self.ledger.head, name, path, before, after)

    def _remember(self, state: Mapping[str, Any], then: RunConfig) -> None:
        """What guard, probes and label source knew when a checkpoint was made; a source that is another one since has nothing to remember. then: its config."""
        self.guard.load(state["guard"])
        self.prober.load(state["probes"])
        if then.labels.source == self.branch_config.labels.source:
            self.labelling.load(state["labels"])

    def take_up(self, checkpoint: checkpoints.Checkpoint | None) -> None:
        """Go on from a checkpoint (None: from the start) with the evaluations that were already recorded."""
        self.measured.load(self.folder)
        if checkpoint is not None:
            self.refused = checkpoint.refused
            self.policy.load(checkpoint.path)
            self._remember(checkpoint.state, self.branch_config)
            self.steps_done = int(checkpoint.state["step"])


def timing_name(branch: int) -> str:
    """The name under which the seconds of a step are kept: steps that two branches have are two timings."""
    return f"branch-{branch:02d}" if branch else "step"


def start(config: RunConfig) -> Run:
    """A new run. Everything about prompts, model and options is checked before its folder is made."""
    config = resolved(config)
    new_folder(config)  # a name that is taken is told before anything is loaded
    problems = load_sets(config)
    check_parts(config, problems)
    check_new(config, problems)
    verify = make_verification(config, problems.train)
    policy = load_policy(config)
    check_lengths(config, policy, problems)
    header = header_of(config, problems, policy)
    folder, ledger = begun(config, header, environment(config) | environment_of(problems))
    return Run(config, folder, problems, policy, ledger, verify)


def read_config(folder: Place) -> RunConfig:
    """The resolved config of a run, with its place, whatever the folder is called by now. Raises RunFolderError when the folder is no run."""
    config = validate_recorded(read(folder).header["config"])
    place = named(folder)
    return config.model_copy(update={"run": config.run.model_copy(update={"name": place.name, "folder": str(place.parent)})})


def resume(folder: str | Place) -> Run:
    """Take up a run that was killed or interrupted, from its newest sound checkpoint; steps after it are repeated and must match the record.

    Raises RunFolderError when it has ended already or when prompts, answers, model or config are not those of its start.
    """
    folder = place(folder)
    config, record = read_config(folder), read(folder)
    if record.finished:
        raise RunFolderError(f"run {folder}", "it has ended", f"See `selftrain report {shlex.quote(str(folder))}`, or start a new run.")
    if not record.is_writable:
        why = f"its record has format {record.format}, which this version reads and does not write"
        raise RunFolderError(f"run {folder}", why, "Resume it with the version that began it, or start a new run.")
    if hash_of_options(record.header["config"]) != record.header["config_hash"]:
        raise RunFolderError(f"{folder / 'run.json'}", "its config is not the one the run was started with", "Undo the edit; a changed config is a new run.")
    at_home = relocated(config, Path(record.environment["cwd"]))
    config = config.model_copy(update={"stored": at_home.stored})
    problems = as_recorded(load_sets(at_home), config, at_home)
    policy = load_policy(at_home)
    header, known = header_of(config, problems, policy), {entry.hash for entry in record.entries}
    check_header(folder, record.header, header)
    check_held_out_answers(folder, record.environment, problems)
    found = kept_checkpoints.load_latest(folder / "checkpoints", objection=lambda one: None if one.state["head"] in known else ELSEWHERE)
    head = str(found.state["head"]) if found else None
    ledger = LedgerWriter.resume(folder, head, exact=header["class"] == "exact")
    run = Run(config, folder, problems, policy, ledger, make_verification(at_home, problems.train))
    run.known.overruled = control.overruled_steps(record)
    run.take_up(found)
    return run


def train_to_end(config: RunConfig) -> Outcome:
    """Start a run and do it: the Python API's one call."""
    for event in start(config).events():
        if isinstance(event, Outcome):
            return event
    raise LedgerError("run", "it ended without an outcome", "Report this with the run folder.")
