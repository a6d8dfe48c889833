"""Requests of a person: pause, resume, stop and rollback, recorded before they are obeyed, the same after kill -9 at any moment."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from selftrain import checkpoints, control
from selftrain.cli import messages
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.errors import CheckpointError, ConfigError
from selftrain.evals import Evaluation
from selftrain.events import Taken
from selftrain.guard import Doubts
from selftrain.guard.doubts import Support
from selftrain.guard_stream import verdicts_of_run
from selftrain.handover import START, Known, Schedule, healthiest, protected, scheduled
from selftrain.ledger import BranchRecord, RequestRecord, Status, lineage, read, storage, verify
from selftrain.replay import replay
from selftrain.report import write_report
from selftrain.report.record import read_record
from selftrain.run import Evaluated, Outcome, Run, read_config, resume, start
from selftrain.train import StepReport
from tests.killing import killed_and_resumed

SMALL = {"policy.model": "toy", "labels.source": "majority", "update.learning_rate": 0.1, "run.num_steps": 12, "run.checkpoint_every_steps": 3}
SMALL |= {"evals.num_problems": 8, "evals.num_samples": 4, "evals.every_steps": 3, "rollout.prompts_per_step": 4, "rollout.num_votes": 6}


def config(tmp_path: Path, name: str, **more: Any) -> RunConfig:
    return load_config(overrides={**SMALL, "run.folder": str(tmp_path), "run.name": name, **{key.replace("__", "."): value for key, value in more.items()}})


def with_requests(run: Run, asked: dict[int, Callable[[Path], object]]) -> list[object]:
    """Do the run; after so many steps do what `asked` says."""
    events: list[object] = []
    for event in run.events():
        events.append(event)
        if isinstance(event, StepReport):
            asked.pop(event.metrics.step + 1, lambda folder: None)(run.folder)
    return events


def back_to(checkpoint: str) -> Callable[[Path], object]:
    return lambda folder: control.ask(folder, control.ROLL_BACK, "Ada", "it began to guess", checkpoint)


def shape(folder: Path) -> list[tuple[str, int | None, int]]:
    return [(entry.kind, entry.step, entry.branch) for entry in read(folder).entries if entry.kind in ("step", "request", "branch", "end")]


def test_a_rollback_goes_on_from_the_checkpoint_on_a_new_branch(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a", probes__num_prompts=8))
    events = with_requests(run, {8: back_to("step-000003")})
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert (outcome.reason, outcome.steps, outcome.handed_over) == ("done", 12, "branch-01-step-000012")
    old, new = [("step", step, 0) for step in range(8)], [("step", step, 1) for step in range(3, 12)]
    assert shape(run.folder) == [*old, ("request", 8, 0), ("branch", 3, 1), *new, ("end", None, 1)]
    ledger = read(run.folder)
    assert ledger.branches == (BranchRecord(1, 0, "step-000003", 3, 8, "it began to guess", "Ada"),)
    assert [step.metrics.step for step in ledger.steps()] == list(range(12))
    assert [step.metrics.version.branch for step in ledger.steps()] == [int(step >= 3) for step in range(12)]
    assert len(list(ledger.steps(rolled_back=True))) == 17
    assert [one.name for one in ledger.checkpoints()] == ["step-000003", *(f"branch-01-step-{step:06d}" for step in (6, 9, 12))]
    assert ledger.group_keys() == [(int(step >= 3), step) for step in range(12)]
    texts = [[one.text for group in ledger.groups(4, branch) for one in group.voted.group.completions] for branch in (0, 1)]
    assert texts[0] != texts[1]
    assert [group.voted.group.step for group in ledger.groups(4)] == [4] * 4
    assert [event.name for event in events if isinstance(event, Evaluated)][-3:] == ["branch-01-step-000006", "branch-01-step-000009", "after"]
    assert [one["name"] for one in ledger.evals()] == ["before", "step-000003", "branch-01-step-000006", "branch-01-step-000009", "after"]
    assert [one["name"] for one in ledger.evals(rolled_back=True)].count("step-000006") == 1


def test_what_is_handed_over_is_measured_again_after_a_rollback_at_the_end(tmp_path: Path) -> None:
    """The run was killed between its last evaluation and its end, and a person sent it back before it was taken up."""
    run = start(config(tmp_path, "a", probes__num_prompts=8))
    first = next(event for event in run.events() if isinstance(event, Evaluated) and event.name == "after")
    back_to("step-000006")(run.folder)
    events = list(resume(run.folder).events())
    outcome, second = events[-1], events[-2]
    assert isinstance(outcome, Outcome)
    assert isinstance(second, Evaluated)
    assert (second.name, outcome.handed_over) == ("after", "branch-01-step-000012")
    assert outcome.after == second.evaluation != first.evaluation
    assert [Evaluation.from_json(one["evaluation"]) for one in read(run.folder).evals() if one["name"] == "after"] == [outcome.after]


def test_a_record_with_branches_verifies_replays_and_reports(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a"))
    with_requests(run, {5: back_to("start"), 11: lambda folder: control.ask(folder, control.PAUSE, "Ada") and control.ask(folder, control.RESUME, "Ada")})
    assert verify(run.folder).status is Status.INTACT
    found = replay(read(run.folder), read_config(run.folder))
    assert found.agrees
    assert found.num_verdicts == 12 + 5
    text = write_report(run.folder).markdown.read_text()
    assert "Rolled back once: after 5 steps to the start, by Ada: it began to guess." in text
    assert "In the 12 steps that count, the guard found no sign of reward hacking." in text


def test_what_was_left_behind_is_reported_before_the_next_step(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a"))

    def back_and_stop(folder: Path) -> None:
        back_to("start")(folder)
        control.ask(folder, control.STOP, "Ada")

    with_requests(run, {5: back_and_stop})
    assert list(read(run.folder).steps()) == []
    assert len(list(read(run.folder).steps(rolled_back=True))) == 5
    taken_up = resume(run.folder)
    assert "Resumed from the start, to which it went back." in messages.opening(taken_up, resumed=True)
    taken_up.ledger.close()
    written = write_report(run.folder)
    for text in (written.markdown.read_text(), written.html.read_text()):
        assert "more in steps that were left behind" in text
        assert "Nothing was sampled yet" not in text


def test_a_person_overrules_the_guard_with_a_reason(tmp_path: Path) -> None:
    """It is in the record before it is obeyed, replays, and a run without a guard refuses it."""

    def overrule(folder: Path) -> object:
        return control.ask(folder, control.OVERRULE, "Ada", "shorter is what I want")

    run = start(config(tmp_path, "a", probes__every_steps=10))
    with_requests(run, {7: overrule})
    assert [(one.action, one.reason, one.step, one.refused) for one in read(run.folder).requests()] == [("overrule", "shorter is what I want", 7, "")]
    judged = {verdict.step: verdict.health is not None for verdict in read(run.folder).verdicts()}
    assert [step for step, has in judged.items() if has] == [5, 6, 10, 11]  # a new window is not there yet, a probe is
    assert replay(read(run.folder), read_config(run.folder)).agrees
    again = verdicts_of_run(run.folder, read_config(run.folder).guard)
    assert [(one.step, one.action, one.health) for _, one in again] == [(one.step, one.action, one.health) for one in read(run.folder).verdicts()]
    other = start(config(tmp_path, "b", guard__action="off"))
    with_requests(other, {2: overrule})
    assert [one.refused for one in read(other.folder).requests()] == ["the guard is off: there is nothing to overrule"]


def overruled(folder: Path) -> None:
    control.ask(folder, control.OVERRULE, "Ada", "shorter is what I want")


def overruled_and_stopped(folder: Path) -> None:
    overruled(folder)
    control.ask(folder, control.STOP, "Ada")


def back_overruled_and_back(folder: Path) -> None:
    for ask in (back_to("step-000006"), overruled, back_to("branch-01-step-000006")):
        ask(folder)


@pytest.mark.parametrize(
    ("plan", "stays"),
    [
        ([{7: overruled, 8: back_to("step-000006")}], False),
        ([{6: overruled, 8: back_to("step-000006")}], True),
        ([{6: overruled_and_stopped}, {9: back_to("step-000006")}], True),
        ([{8: back_overruled_and_back}], True),
    ],
    ids=["later", "there", "there, and the run stopped", "where a branch begins"],
)
def test_a_guard_overruled_at_the_place_that_a_run_goes_back_to_stays_overruled(
    tmp_path: Path, plan: list[dict[int, Callable[[Path], object]]], stays: bool
) -> None:
    """And what is worked out from the record alone knows it: replay, `selftrain guard`, and what the report says of checkpoints."""
    options = {"probes__every_steps": 2, "guard__window_steps": 2, "guard__baseline_steps": 2, "guard__action": "warn", "update__learning_rate": 1.5}
    run = start(config(tmp_path, "a", **options))
    for number, requests in enumerate(plan):
        run = run if number == 0 else resume(run.folder)
        with_requests(run, dict(requests))
    ledger, section = read(run.folder), read_config(run.folder).guard
    assert replay(ledger, read_config(run.folder)).agrees
    again = [(one.step, one.action, one.health) for _, one in verdicts_of_run(run.folder, section)]
    assert again == [(one.step, one.action, one.health) for one in ledger.verdicts(rolled_back=True)]
    assert read_record(run.folder).doubts == run.guard.doubts
    probed = {one.step for one in run.guard.doubts.supports}
    assert probed
    assert (min(probed) >= 6) == stays


def test_what_is_kept_for_a_place_where_the_guard_was_overruled_is_what_it_would_choose_there(tmp_path: Path) -> None:
    """A run that goes back there knows nothing any more; its checkpoint does."""
    run = start(config(tmp_path, "a", probes__every_steps=2, guard__action="warn", run__num_checkpoints=99))
    with_requests(run, {6: overruled})
    other = Known(run.folder / "checkpoints")
    other.overruled = control.overruled_steps(read(run.folder))
    for known in (run.known, other):
        made, before = known["step-000006"], known["step-000003"]
        assert made is not None
        assert made.supports
        assert known.when_made("step-000006") == Doubts()
        assert known.when_made("step-000003") == before != Doubts()


def test_rolled_back_twice_history_has_three_parts(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a"))
    with_requests(run, {4: back_to("step-000003")} | {8: lambda folder: None})
    assert lineage(read(run.folder).branches, 1) == {1: (3, None), 0: (0, 3)}
    run = start(config(tmp_path, "b"))
    asked = {4: back_to("step-000003"), 7: back_to("branch-01-step-000006")}
    with_requests(run, asked)
    ledger = read(run.folder)
    assert ledger.lineage == {2: (6, None), 1: (3, 6), 0: (0, 3)}
    assert [step.metrics.version.branch for step in ledger.steps()] == [(step >= 3) + (step >= 6) for step in range(12)]
    assert replay(ledger, read_config(run.folder)).agrees


def test_the_seeds_of_a_branch_are_its_own_and_repeat(tmp_path: Path) -> None:
    heads = set()
    for name in ("a", "b"):
        events = with_requests(start(config(tmp_path, name)), {7: back_to("step-000006")})
        assert isinstance(events[-1], Outcome)
        heads.add(events[-1].head)
    assert len(heads) == 1


@pytest.mark.parametrize("character", ["\x1b", "\x00", "\x9b", "\u202e", "\u2066", "\ud83d"])
@pytest.mark.parametrize("field", ["reason", "who", "checkpoint"])
def test_a_request_holds_nothing_that_a_terminal_cannot_show(tmp_path: Path, field: str, character: str) -> None:
    values = {"action": "roll_back", "who": "Ada", "reason": "why\n\tso → 😀", "checkpoint": "start"}
    assert control.fault_of(values) == ""
    values[field] += character
    assert f"U+{ord(character):04X}" in control.fault_of(values)
    with pytest.raises(ConfigError, match="cannot be shown"):
        control.ask(tmp_path, values["action"], values["who"], values["reason"], values["checkpoint"])
    control.requests_folder(tmp_path).mkdir()
    control.file_of(tmp_path, 1).write_text(json.dumps(values))
    assert control.read_request(tmp_path, 1).action == control.UNREADABLE


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def rolled_back(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that nobody killed, at its end."""
    run = start(config(tmp_path_factory.mktemp("rolled"), "whole"))
    with_requests(run, {8: back_to("step-000003")})
    return run


@pytest.mark.parametrize("moment", ["request", "branch", "load", "save", "after"])
def test_killed_around_a_rollback_it_ends_with_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rolled_back: Run, moment: str) -> None:
    """Before and after each of the writes that make a rollback."""
    expected = rolled_back
    run = start(config(tmp_path, "cut"))

    def dies(*_: object, **__: object) -> None:
        raise Killed

    def armed(folder: Path) -> None:
        back_to("step-000003")(folder)
        target = {"request": (run.ledger, "append_branch"), "branch": (run.policy, "load"), "load": (run.policy, "start_branch"), "save": (checkpoints, "save")}
        if moment in target:
            monkeypatch.setattr(*target[moment], dies)

    try:
        for event in with_requests_until(run, {8: armed}, branch_steps=2 if moment == "after" else 99):
            assert event
    except Killed:
        pass
    monkeypatch.undo()
    run.ledger.close()
    again = resume(run.folder)
    outcome = list(again.events())[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.head == read(expected.folder).head
    assert again.policy.weights_hash() == expected.policy.weights_hash()


def with_requests_until(run: Run, asked: dict[int, Callable[[Path], object]], branch_steps: int) -> list[object]:
    events: list[object] = []
    for event in run.events():
        events.append(event)
        if isinstance(event, StepReport):
            asked.pop(event.metrics.step + 1, lambda folder: None)(run.folder)
            branch_steps -= event.metrics.version.branch
        if branch_steps == 0:
            break
    return events


@pytest.mark.timeout(120)
def test_killed_at_random_around_rollbacks_the_requests_are_obeyed_once(tmp_path: Path) -> None:
    """The records of a run with a pending rollback, killed eight times: every request once, an intact record that replays."""
    options = config(tmp_path, "cut", run__num_steps=40)
    run = start(options)
    back_to("start")(run.folder)
    run.ledger.close()
    assert killed_and_resumed(options, times=4, max_events=6) == 4
    ledger = read(run.folder)
    assert [request.number for request in ledger.requests()] == [1]
    assert (len(ledger.branches), ledger.end_reason) == (1, "done")
    assert replay(ledger, options).agrees


def test_a_pause_waits_for_resume_and_changes_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.taking_up.POLL_S", 0.01)
    run = start(config(tmp_path, "a"))
    control.ask(run.folder, control.PAUSE, "Ada", "let me look")
    seen: list[object] = []
    worker = threading.Thread(target=lambda: seen.extend(run.events()))
    worker.start()
    deadline = time.monotonic() + 20
    while not any(isinstance(event, Taken) for event in read(run.folder).requests()) and not list(read(run.folder).requests()) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert not list(read(run.folder).steps())
    control.ask(run.folder, control.RESUME, "Ada")
    worker.join(30)
    ledger = read(run.folder)
    assert [(one.action, one.step, one.refused) for one in ledger.requests()] == [("pause", 0, ""), ("resume", 0, "")]
    plain = start(config(tmp_path, "b"))
    with_requests(plain, {})
    assert [step.metrics for step in ledger.steps()] == [step.metrics for step in read(plain.folder).steps()]


def test_a_stop_ends_the_run_with_a_checkpoint_and_is_not_obeyed_again(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a"))
    outcome = with_requests(run, {5: lambda folder: control.ask(folder, control.STOP, "Ada", "enough")})[-1]
    assert isinstance(outcome, Outcome)
    assert (outcome.reason, outcome.steps) == ("interrupted", 5)
    end = with_requests(resume(run.folder), {})[-1]
    assert isinstance(end, Outcome)
    assert end.reason == "done"
    for name in ("step-000005", "step-000006"):  # the checkpoint of the stop is lost: the stop is met again in the record
        assert (run.folder / "checkpoints").is_dir(), name
    run = start(config(tmp_path, "b"))
    with_requests(run, {5: lambda folder: control.ask(folder, control.STOP, "Ada", "enough")})
    (run.folder / "checkpoints" / "step-000005" / "toy.json").unlink()
    again = with_requests(resume(run.folder), {})[-1]
    assert isinstance(again, Outcome)
    assert (again.reason, again.head) == ("done", end.head)


def test_what_cannot_be_obeyed_is_recorded_with_the_reason(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a"))

    def ask(folder: Path) -> None:
        control.ask(folder, control.RESUME, "Ada")
        back_to("step-000099")(folder)
        back_to("../../etc")(folder)
        (folder / "requests" / "000007.json").write_text('{"action": "format the disk"}')
        (folder / "requests" / "000008.json").write_text("[" * 100_000)
        (folder / "requests" / "note.txt").write_text("no request")

    events = with_requests(run, {2: ask})
    found = [(one.number, one.action, one.refused) for one in read(run.folder).requests()]
    assert found == [
        (1, "resume", "the run is not paused"),
        (2, "roll_back", "there is no checkpoint of that name"),
        (3, "roll_back", "there is no checkpoint of that name"),
        (7, "unreadable", "it does not have the fields action, checkpoint, reason, who"),
        (8, "unreadable", "it is not JSON"),
    ]
    assert isinstance(events[-1], Outcome)
    assert events[-1].steps == 12
    assert not read(run.folder).branches


def test_a_damaged_checkpoint_is_not_gone_back_to(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a"))

    def ask(folder: Path) -> None:
        (folder / "checkpoints" / "step-000003" / "toy.json").write_text("{}")
        back_to("step-000003")(folder)

    with_requests(run, {4: ask})
    refused = next(read(run.folder).requests()).refused
    assert refused == "toy.json has 2 bytes instead of " + refused.split()[-1]
    other = start(config(tmp_path, "b"))
    with pytest.raises(CheckpointError, match="no checkpoint of that name"):
        other.roll_back("step-000003", "a test", "a rule")


def test_what_is_no_file_is_refused_and_a_name_with_more_zeros_is_read(tmp_path: Path) -> None:
    """A folder of such a name ended the run, and again when it was resumed."""

    def ask(folder: Path) -> None:
        control.file_of(folder, 1).mkdir(parents=True)
        os.mkfifo(control.file_of(folder, 2))
        values = {"action": "roll_back", "checkpoint": "step-000003", "reason": "it began to guess", "who": "Ada"}
        (folder / "requests" / "0000006.json").write_text(json.dumps(values))

    run = start(config(tmp_path, "a"))
    with_requests(run, {5: ask})
    found = [(one.number, one.action, one.refused) for one in read(run.folder).requests()]
    odd = "it is not a file that can be read"
    assert found == [(1, "unreadable", odd), (2, "unreadable", odd), (6, "roll_back", "")]
    assert [one.checkpoint for one in read(run.folder).branches] == ["step-000003"]
    assert control.ask(run.folder, control.STOP, "Ada").number == 7


def test_requests_are_numbered_and_never_overwrite(tmp_path: Path) -> None:
    made = [control.ask(tmp_path, control.PAUSE, f"{at}") for at in range(3)]
    assert [one.number for one in made] == [1, 2, 3]
    assert not storage.create(tmp_path / "requests" / "000002.json", b"other")
    assert json.loads((tmp_path / "requests" / "000002.json").read_text())["who"] == "1"
    assert control.waiting(tmp_path, {1}) == control.Request(2, "pause", None, "", "1")
    assert control.waiting(tmp_path, {1, 2, 3}) is None
    workers = [threading.Thread(target=control.ask, args=(tmp_path, control.STOP, str(at))) for at in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert control.numbers(tmp_path) == list(range(1, 12))
    assert [path.name for path in (tmp_path / "requests").iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("action", "more", "words"),
    [
        ("dance", {}, "no action 'dance'"),
        ("roll_back", {"reason": "bad"}, "needs a checkpoint and a reason"),
        ("roll_back", {"checkpoint": "step-000003", "reason": " "}, "needs a checkpoint and a reason"),
        ("pause", {"checkpoint": "step-000003"}, "only a rollback"),
        ("pause", {"reason": "x" * 3000}, "at most 2000"),
        ("overrule", {"reason": " "}, "needs a reason"),
    ],
)
def test_a_request_that_makes_no_sense_is_not_written(tmp_path: Path, action: str, more: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        control.ask(tmp_path, action, "Ada", **more)
    assert not control.numbers(tmp_path)


def test_the_checkpoint_made_at_a_rollback_is_never_handed_over() -> None:
    """An uninterrupted run and one that was resumed there hand over the same."""
    schedule = Schedule(every_steps=3, num_steps=12, window_steps=2)
    names = ["step-000003", "step-000006", "branch-01-step-000003", "branch-01-step-000006", "step-000009", "odd"]
    history = lineage([BranchRecord(1, 0, "step-000003", 3, 9, "r", "w")], 1)
    there = scheduled(names, history, schedule)
    assert there == {3: "step-000003", 6: "branch-01-step-000006"}
    assert healthiest(there, 7, Doubts(), schedule) == "branch-01-step-000006"
    assert healthiest(there, 7, Doubts(6), schedule) == "step-000003"
    assert healthiest(there, 7, Doubts(4), schedule) == START
    assert protected(there, 7, Doubts(), schedule) == {"step-000003", "branch-01-step-000006"}
    assert protected(there, 9, Doubts(), schedule) == {"branch-01-step-000006"}


def test_a_checkpoint_whose_probe_is_worse_than_the_bases_is_not_handed_over() -> None:
    """The probe of a checkpoint is the newest one before it, or the one taken right after it was made; it is kept while a younger one is in doubt."""
    schedule = Schedule(every_steps=3, num_steps=12, window_steps=2)
    there = {3: "step-000003", 6: "step-000006", 9: "step-000009"}
    assert healthiest(there, 10, Doubts(None, (8, 9)), schedule) == "step-000006"
    assert healthiest(there, 10, Doubts(None, (6, 7, 8, 9)), schedule) == "step-000003"
    assert healthiest(there, 10, Doubts(None, (5, 8)), schedule) == "step-000003"
    assert healthiest(there, 10, Doubts(9, (3,)), schedule) == "step-000006"
    assert healthiest(there, 10, Doubts(None, (2, 5, 8)), schedule) == START
    assert protected(there, 11, Doubts(None, (8, 9)), schedule) == {"step-000006"}
    assert protected(there, 10, Doubts(None, (6,)), schedule) == {"step-000003", "step-000009"}


def test_a_branch_out_of_turn_is_refused(tmp_path: Path) -> None:
    from selftrain.errors import LedgerError

    run = start(config(tmp_path, "a"))
    with pytest.raises(LedgerError, match="number branches"):
        run.ledger.append_branch(BranchRecord(2, 0, "start", 0, 0, "r", "w"))
    run.ledger.append_request(RequestRecord(1, "pause", None, "", "Ada", 0, ""))
    run.ledger.close()
    assert resume(run.folder).ledger.is_replaying


def test_what_is_best_supported_is_kept_until_nothing_can_be_found_against_what_came_later() -> None:
    """A support at step 6 and a fall at 12: checkpoint 8 was looked at by nobody, so it is as bad as what came after it."""
    schedule = Schedule(every_steps=2, num_steps=20, window_steps=2)
    there = {steps: f"step-{steps:06d}" for steps in (2, 4, 6, 8)}
    doubts = Doubts(supports=(Support(0, 0.5, 0.0), Support(4, 0.7, 0.02), Support(6, 0.75, 0.02)))
    assert healthiest(there, 8, doubts, schedule) == "step-000008", "as good as the last that was looked at"
    assert protected(there, 12, doubts, schedule) == {"step-000006", "step-000008"}
    fell = replace(doubts, supports=(*doubts.supports, Support(12, 0.4, 0.02)))
    assert healthiest(there, 13, fell, schedule) == "step-000006"
    assert protected(there, 13, fell, schedule) == {"step-000006"}
    assert healthiest(there, 13, replace(fell, harm_since_step=7), schedule) == "step-000004", "older than the window before the harm"


def test_what_is_looked_at_one_update_later_is_kept_too() -> None:
    """Checkpoint 6 counts as looked at by the look at step 5, so it is what a later fall hands over."""
    schedule = Schedule(every_steps=2, num_steps=20, window_steps=1)
    there = {steps: f"step-{steps:06d}" for steps in (2, 4, 6, 8)}
    doubts = Doubts(supports=(Support(0, 0.5, 0.0), Support(5, 0.7, 0.02)))
    assert "step-000006" in protected(there, 9, doubts, schedule)
    assert healthiest(there, 11, replace(doubts, supports=(*doubts.supports, Support(10, 0.4, 0.02))), schedule) == "step-000006"
