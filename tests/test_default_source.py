"""What a user gets who names no label source: the averaged teacher, whole runs of it, what it refuses, and the way back to the plain vote."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from selftrain.config import RunConfig
from selftrain.config_load import load_config, recipe
from selftrain.errors import ConfigError
from selftrain.ledger import Status, read, verify
from selftrain.policies.toy import ToyPolicy
from selftrain.replay import replay
from selftrain.report.repeat import command_line
from selftrain.report.words import who_decides
from selftrain.run import Outcome, read_config, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import Action, Role
from tests.killing import assert_it_ends_the_same, cut_off_and_resumed
from tests.recorded import RecordedRuns
from tests.test_extras import groups_of
from tests.test_rollback import COLLAPSES
from tests.test_train import LEARNS, SMALL, assert_blind_to_truth, config


def unnamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options without a label source."""
    return {name: value for name, value in options.items() if name != "labels.source"}


DEFAULT = {**unnamed(SMALL), "rollout.prompts_per_step": 4, "rollout.num_votes": 8}


def test_who_names_no_source_gets_the_averaged_teacher(recorded_run: RecordedRuns) -> None:
    assert RunConfig().labels.source == load_config().labels.source == "ema"
    assert "labels" not in recipe("embedded")
    assert RunConfig().first_of.sources == ("reference", "ema")
    outcome = recorded_run(DEFAULT)
    ledger = read(outcome.folder)
    assert "decided by the vote of a moving average of the model's weights. Label-free" in who_decides(ledger.header)
    for one in groups_of(outcome.folder):
        assert (one.label.source, one.label.uses_truth) == ("ema", False)
        assert one.label.decided_by == f"average {one.voted.group.completions[0].version}"
        assert [(extra.group.role, extra.vote.num_votes) for extra in one.voted.group.extras] == [(Role.TEACHER, 8)]


def test_it_learns_without_labels(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", unnamed(LEARNS)))
    assert outcome.reason == "done"
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.after.avg.value > outcome.before.avg.value + 0.15


def test_truth_never_reaches_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_run: RecordedRuns) -> None:
    """Design law 1: with all true answers changed, ledger, checkpoints and choice are the same byte for byte, and only the evaluations differ."""
    assert_blind_to_truth(tmp_path, monkeypatch, recorded_run, DEFAULT)


def test_stopped_and_killed_it_ends_the_same(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    assert_it_ends_the_same(recorded_run(DEFAULT), lambda name: config(tmp_path, name, DEFAULT))


def test_it_is_verified_and_replayed_without_a_model(monkeypatch: pytest.MonkeyPatch, recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(DEFAULT)
    monkeypatch.setattr(ToyPolicy, "sample", None)
    assert verify(outcome.folder).status is Status.INTACT
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


def test_the_guard_rolls_it_back_and_the_remedy_acts(tmp_path: Path) -> None:
    """From the toy's weak start at a rate that ruins it the teacher is ruined late, too; a frozen one takes over."""
    options = {**unnamed(COLLAPSES), "rollback.max_rollbacks": 1, "run.num_steps": 26, "rollback.remedy": "frozen_teacher"}
    outcome = train_to_end(config(tmp_path, "a", options))
    ledger = read(outcome.folder)
    assert [one.remedy["options"] for one in ledger.branches] == [{"labels.source": "frozen"}]
    assert Action.ROLL_BACK in {verdict.action for verdict in ledger.verdicts(rolled_back=True)}
    sources = {branch: {one.label.source for one in ledger.groups(step, branch)} for branch, step in ledger.group_keys(rolled_back=True)}
    assert sources == {0: {"ema"}, 1: {"frozen"}}
    assert replay(ledger, read_config(outcome.folder)).agrees


def test_a_person_rolls_it_back_and_it_goes_on_from_there(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a", DEFAULT))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 7 and not run.ledger.branches:
            run.roll_back("step-000003", "to see", "a test")
    assert isinstance(event, Outcome)
    assert (event.reason, event.steps) == ("done", 12)
    assert {one.label.source for one in groups_of(tmp_path / "a")} == {"ema"}
    assert replay(read(tmp_path / "a"), read_config(tmp_path / "a")).agrees


def test_one_option_is_the_way_back_to_the_plain_vote(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", DEFAULT, labels__source="majority"))
    assert {(one.label.source, len(one.voted.group.extras)) for one in groups_of(outcome.folder)} == {("majority", 0)}
    assert not any("cost/teacher_tokens" in step.metrics.values for step in read(outcome.folder).steps())


def test_a_run_of_the_time_when_the_vote_was_the_default_stays_one(tmp_path: Path) -> None:
    """Its record holds the whole config, a source that nobody had named too: it goes on as majority, and its command line names it."""
    outcome = cut_off_and_resumed(config(tmp_path, "a", SMALL), step=4)
    assert {one.label.source for one in groups_of(outcome.folder)} == {"majority"}
    assert read(outcome.folder).header["config"]["labels"]["source"] == "majority"
    assert "--labels.source majority" in command_line(read_config(outcome.folder))
    assert "--labels.source" not in command_line(load_config(overrides={"policy.model": "toy"}))
    assert replay(read(outcome.folder), read_config(outcome.folder)).agrees


@pytest.mark.parametrize(
    ("options", "given", "do"),
    [
        ({"reward.rule": "share"}, "labels.source = ema, reward.rule = share", "Take labels.source majority (or gate or flip_damped)"),
        ({"labels.clustering": "judge"}, "labels.source = ema, labels.clustering = judge", "Take labels.source majority, the policy's own vote"),
        ({"labels.clustering": "overlap"}, "labels.source = ema, labels.clustering = overlap", "Take labels.source majority, the policy's own vote"),
        (
            {"guard.action": "roll_back", "rollback.remedy": "ema_teacher"},
            "guard.action = roll_back, rollback.remedy = ema_teacher",
            "Choose another rollback.remedy, or guard.action = halt.",
        ),
    ],
)
def test_what_it_cannot_go_with_is_refused_and_the_error_names_the_way_out(tmp_path: Path, options: dict[str, Any], given: str, do: str) -> None:
    """An option whose default depended on another one would be a hidden default, so nothing is chosen for the user."""
    with pytest.raises(ConfigError) as caught:
        start(config(tmp_path, "a", {**DEFAULT, **options}))
    assert caught.value.given == given
    assert caught.value.do.startswith(do)
    assert not (tmp_path / "a").exists()
