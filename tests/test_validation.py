"""A few labelled problems that the config names choose the checkpoint; the report says whether the guard would have chosen the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain.compose import header_of, load_sets
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, RunFolderError
from selftrain.handover import START, best_validated
from selftrain.ledger import read
from selftrain.report import read_record, write_report
from selftrain.run import resume, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import AnswerSheet, PromptSet
from tests.killing import cut_off_and_resumed

HACKED = {
    "policy.model": "toy:weak",
    "labels.source": "majority",
    "update.learning_rate": 0.1,
    "run.num_steps": 20,
    "run.checkpoint_every_steps": 4,
    "guard.action": "off",
}
HACKED |= {"evals.num_problems": 16, "evals.num_samples": 4, "validation.task": "toy", "validation.num_problems": 40, "validation.num_samples": 16}


def config(tmp_path: Path, name: str, **more: Any) -> RunConfig:
    return load_config(overrides={**HACKED, "run.folder": str(tmp_path), "run.name": name, **{key.replace("__", "."): value for key, value in more.items()}})


def test_of_start_and_checkpoints_the_best_is_taken() -> None:
    there = {4: "step-000004", 8: "step-000008", 12: "step-000012"}
    assert best_validated(there.values(), {START: 0.5, "step-000004": 0.6, "step-000008": 0.7}) == "step-000008"
    assert best_validated(there.values(), {START: 0.5, "step-000004": 0.7, "step-000008": 0.7}) == "step-000004"
    assert best_validated(there.values(), {START: 0.7, "step-000004": 0.7}) == START
    assert best_validated([], {START: 0.0}) == START
    assert best_validated(there.values(), {START: 0.5, "step-000003": 0.9}) == START


def test_a_hacked_run_hands_over_what_was_best_on_the_validation_problems(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", run__num_checkpoints=1))
    record = read_record(outcome.folder)
    avgs = {one.name: one.evaluation.avg.value for one in record.validated}
    assert list(avgs) == [START, *(f"step-{step:06d}" for step in (4, 8, 12, 16, 20))]
    assert avgs["step-000020"] < avgs[START]
    assert outcome.handed_over == max(avgs, key=lambda name: avgs[name]) != "step-000020"
    assert record.healthiest == "step-000020"
    header = read(outcome.folder).header
    assert (header["label_free"], header["truth_channels"], header["validation"]["count"]) == (False, ["validation"], 40)
    assert not any(group.label.uses_truth for step in read(outcome.folder).group_steps() for group in read(outcome.folder).groups(step))
    text = write_report(outcome.folder).markdown.read_text()
    assert "The guard, without labels, would have handed over checkpoint step-000020: they do not agree." in text
    assert "40 validation problems (avg@16 " in text
    assert "the checkpoint is chosen on 40 labelled problems" in text
    assert "validation-" not in text


def test_a_learning_run_agrees_with_the_guard_and_ends_the_same_when_it_was_cut_off(tmp_path: Path) -> None:
    more = {"policy__model": "toy", "guard__action": "halt"}
    outcome = train_to_end(config(tmp_path, "a", **more))
    record = read_record(outcome.folder)
    avgs = {one.name: one.evaluation.avg.value for one in record.validated}
    assert outcome.handed_over == max(avgs, key=lambda name: avgs[name]) != START
    again = cut_off_and_resumed(config(tmp_path, "b", **more), 9)
    assert (again.head, again.handed_over) == (outcome.head, outcome.handed_over)


def test_what_a_rollback_left_behind_is_handed_over_where_it_was_measured_best(tmp_path: Path) -> None:
    """The guard goes back to the start, since it knows no true answer; what was measured stays on the disk and counts."""
    more = {"update__learning_rate": 0.5, "run__seed": 1, "run__checkpoint_every_steps": 5, "run__num_steps": 15, "rollback__factor": 0.01}
    more |= {"policy__model": "toy", "guard__action": "roll_back", "labels__source": "majority", "run__num_checkpoints": 1, "validation__num_samples": 8}
    more |= {"validation__num_problems": 32, "update__warmup_steps": 0}
    outcome = train_to_end(config(tmp_path, "a", **more))
    record = read_record(outcome.folder)
    assert [one.checkpoint for one in record.ledger.branches] == [START]
    avgs = {one.name: one.evaluation.avg.value for one in record.validated}
    assert {"step-000005", "step-000010"} <= avgs.keys()
    assert outcome.handed_over == max(avgs, key=lambda name: avgs[name]) == "step-000005"
    text = write_report(outcome.folder).markdown.read_text()
    assert f"checkpoint step-000005, the best of {len(avgs)} on the 32 validation problems" in text
    again = cut_off_and_resumed(config(tmp_path, "b", **more), 9)
    assert (again.head, again.handed_over) == (outcome.head, outcome.handed_over)


def test_the_best_one_that_can_be_read_is_handed_over(tmp_path: Path) -> None:
    """A run whose best checkpoint was damaged meanwhile ends with the next best."""
    more = {"policy__model": "toy", "guard__action": "halt"}
    whole = train_to_end(config(tmp_path, "a", **more, run__num_checkpoints=9))
    avgs = {one.name: one.evaluation.avg.value for one in read_record(whole.folder).validated}
    best, second = sorted(avgs, key=lambda name: -avgs[name])[:2]
    assert whole.handed_over == best
    run = start(config(tmp_path, "b", **more, run__num_checkpoints=9))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 19:
            run.folder.joinpath("checkpoints", best, "toy.json").write_text("{")
    assert read_record(run.folder).handed_over == second


def test_changed_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They choose the checkpoint. A run of an earlier version does not say which they were, and goes on."""
    kept = {name: config(tmp_path, name, run__num_steps=4) for name in ("a", "b")}
    start(kept["a"]).ledger.close()
    with monkeypatch.context() as patch:
        patch.setattr("selftrain.run.header_of", lambda *parts: {name: one for name, one in header_of(*parts).items() if name != "validation_answers_hash"})
        start(kept["b"]).ledger.close()
    monkeypatch.setattr("selftrain.run.load_sets", lambda config: replace(load_sets(config), validation=with_answers(load_sets(config).validation, "0")))
    with pytest.raises(RunFolderError, match="the true answers of the validation problems: they are not those the run was started with"):
        resume(tmp_path / "a")
    assert resume(tmp_path / "b").steps_done == 0


def with_answers(problems: PromptSet | None, answer: str) -> PromptSet:
    assert problems is not None
    return replace(problems, sheet=AnswerSheet({prompt.id: answer for prompt in problems}))


def test_without_it_training_is_the_same(tmp_path: Path) -> None:
    runs = [start(config(tmp_path, "a")), start(config(tmp_path, "b", validation__task=None))]
    metrics = [[event.metrics for event in run.events() if isinstance(event, StepReport)] for run in runs]
    assert metrics[0] == metrics[1]
    assert runs[0].policy.version.updates > 0
    assert read(runs[1].folder).header["label_free"] is True


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"validation.task": "add:2"}, "the toy policy knows its own problems only"),
        ({"validation.file": "some.jsonl"}, "the toy policy knows its own problems only"),
        ({"policy.model": "embedded:default", "prompts.task": "add:2", "validation.task": "add:2", "validation.file": "some.jsonl"}, "give one of the two"),
    ],
)
def test_problems_that_cannot_be_are_refused(tmp_path: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        start(load_config(overrides={**HACKED, "run.folder": str(tmp_path), "run.name": "a", **options}))


def test_a_task_makes_other_problems_for_it(tmp_path: Path) -> None:
    options = {"policy.model": "embedded:default", "prompts.task": "add:2", "prompts.count": 200, "validation.task": "add:2"}
    sets = load_sets(load_config(overrides={**HACKED, **options}))
    assert sets.validation is not None
    assert sets.held_out is not None
    ids = [{prompt.id for prompt in one} for one in (sets.train, sets.held_out, sets.validation)]
    assert [len(one) for one in ids] == [200, 16, 40]
    assert len(set.union(*ids)) == 256
