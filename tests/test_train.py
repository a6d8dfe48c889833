"""The whole loop on the toy policy: it learns, collapses and is stopped, repeats itself, resumes, and never sees the truth."""

from __future__ import annotations

import json
import linecache
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import selftrain
from selftrain import compose
from selftrain.compose import deciding
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.errors import CheckpointError, LedgerError, ModelError, RunFolderError
from selftrain.handover import START
from selftrain.ledger import LedgerWriter, read, verify
from selftrain.ledger.objects import Place
from selftrain.ledger.storage import names
from selftrain.policies import toy
from selftrain.replay import replay
from selftrain.run import Evaluated, Outcome, Run, read_config, resume, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import Action, AnswerSheet, Group, PromptSet
from tests.killing import killed_and_resumed
from tests.recorded import RecordedRuns

LEARNS = {"policy.model": "toy", "labels.source": "majority", "update.learning_rate": 0.1, "run.num_steps": 30}
HACKED = {"policy.model": "toy:weak", "labels.source": "majority", "update.learning_rate": 0.1, "run.num_steps": 40, "guard.action": "off"}
CONSTANT = {"policy.model": "toy:weak", "labels.source": "majority", "update.learning_rate": 1.5, "run.num_steps": 60, "run.checkpoint_every_steps": 2}
CONSTANT |= {"guard.action": "halt"}
SMALL = {**LEARNS, "run.num_steps": 12, "run.checkpoint_every_steps": 3, "update.warmup_steps": 0, "evals.num_problems": 16, "evals.num_samples": 4}


def config(tmp_path: Path, name: str, options: Mapping[str, Any], **more: Any) -> RunConfig:
    return load_config(overrides={**options, "run.folder": str(tmp_path), "run.name": name, **{key.replace("__", "."): value for key, value in more.items()}})


def finish(run: Run) -> Outcome:
    return next(event for event in run.events() if isinstance(event, Outcome))


def test_it_learns_without_labels(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", LEARNS))
    assert outcome.reason == "done"
    assert outcome.before is not None
    assert outcome.after is not None
    assert outcome.after.avg.value > outcome.before.avg.value + 0.15
    assert read(outcome.folder).header["label_free"] is True


def test_a_vote_that_is_mostly_wrong_is_hacked(tmp_path: Path) -> None:
    """The reward rises while accuracy falls to nothing."""
    events = list(start(config(tmp_path, "a", HACKED)).events())
    rewards = [event.metrics.values["reward/mean_frac"] for event in events if isinstance(event, StepReport)]
    outcome = events[-1]
    assert isinstance(outcome, Outcome)
    assert outcome.before is not None
    assert outcome.after is not None
    assert sum(rewards[-5:]) > sum(rewards[:5]) + 1
    assert outcome.after.avg.value < outcome.before.avg.value - 0.08


def test_a_collapse_is_seen_stopped_and_not_handed_over(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", CONSTANT, probes__num_prompts=0))
    assert outcome.reason == "halted"
    verdicts = list(read(outcome.folder).verdicts())
    assert [finding.rule for finding in verdicts[-1].findings] == ["constant_answer"]
    first = next(verdict.step for verdict in verdicts if verdict.findings)
    assert outcome.handed_over == START or int(outcome.handed_over.removeprefix("step-")) <= first - 5
    assert outcome.steps < 60


def test_the_same_config_gives_the_same_ledger_and_weights(tmp_path: Path) -> None:
    runs = [start(config(tmp_path, name, SMALL)) for name in ("a", "b")]
    outcomes = [finish(run) for run in runs]
    assert outcomes[0].head == outcomes[1].head
    assert runs[0].policy.weights_hash() == runs[1].policy.weights_hash()
    other = train_to_end(config(tmp_path, "c", SMALL, run__seed=1))
    assert other.head != outcomes[0].head


def shuffled_truth(prompts: PromptSet) -> PromptSet:
    answers = [str(prompts.sheet.answer_of(prompt.id)) for prompt in prompts]
    turned = [str((int(answer) + 1) % toy.NUM_ANSWERS) for answer in answers]
    return PromptSet(prompts.prompts, AnswerSheet(dict(zip((prompt.id for prompt in prompts), turned, strict=True))), prompts.origin)


def change_all_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on runs start with other true answers to all of their problems, and nothing else is different."""
    real = compose.load_sets
    monkeypatch.setattr(
        "selftrain.run.load_sets",
        lambda config: compose.Problems(
            shuffled_truth(real(config).train), shuffled_truth(real(config).held_out or real(config).train), aside=real(config).aside
        ),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for part in ("ledger", "checkpoints") for path in sorted((folder / part).rglob("*")) if path.is_file()
    }


def assert_blind_to_truth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded_run: RecordedRuns, options: Mapping[str, Any]) -> None:
    """Two runs of these options, the second with all true answers changed."""
    honest = recorded_run(options)
    change_all_truth(monkeypatch)
    blind = train_to_end(config(tmp_path, "b", options))
    assert files_of(honest.folder) == files_of(blind.folder)
    assert (honest.head, honest.handed_over) == (blind.head, blind.handed_over)
    assert honest.before != blind.before


@pytest.mark.parametrize("options", [SMALL, {**CONSTANT, "run.num_steps": 30}], ids=["healthy", "halted"])
def test_truth_never_reaches_a_label_free_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Mapping[str, Any], recorded_run: RecordedRuns) -> None:
    """Design law 1: with all true answers changed, ledger, checkpoints and choice are the same byte for byte, and only the evaluations differ."""
    assert_blind_to_truth(tmp_path, monkeypatch, recorded_run, options)


def test_a_run_cut_off_in_its_last_evaluation_ends_when_resumed(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    expected = recorded_run(SMALL)
    run = start(config(tmp_path, "cut", SMALL))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 11:
            break
    run.ledger.close()
    outcome = finish(resume(tmp_path / "cut"))
    assert (outcome.head, outcome.after) == (expected.head, expected.after)


def test_a_run_killed_as_it_dropped_a_checkpoint_leaves_none_too_many(tmp_path: Path) -> None:
    """Killed in its last step: what is taken up saves nothing more, and drops all the same."""
    options = {**SMALL, "run.num_checkpoints": 1, "guard.window_steps": 2, "probes.num_prompts": 0}
    train_to_end(config(tmp_path, "whole", options))
    run = start(config(tmp_path, "cut", options))
    checkpoints = tmp_path / "cut" / "checkpoints"
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 2:
            shutil.copytree(checkpoints / "step-000003", tmp_path / "kept")
        if isinstance(event, StepReport) and event.metrics.step == 11:
            break
    run.ledger.close()
    shutil.move(tmp_path / "kept", checkpoints / "step-000003")
    shutil.copytree(checkpoints / "step-000012", checkpoints / ".tmp-step-000006")
    finish(resume(tmp_path / "cut"))
    assert names(checkpoints) == names(tmp_path / "whole" / "checkpoints")
    assert "step-000003" not in names(checkpoints)


def test_a_run_cut_off_after_it_was_halted_stays_halted(tmp_path: Path) -> None:
    options = {**CONSTANT, "run.checkpoint_every_steps": 1}
    expected = train_to_end(config(tmp_path, "whole", options))
    run = start(config(tmp_path, "cut", options))
    for event in run.events():
        if isinstance(event, StepReport) and event.verdict.action is Action.HALT:
            break
    run.ledger.close()
    outcome = finish(resume(tmp_path / "cut"))
    assert (outcome.reason, outcome.steps, outcome.head) == ("halted", expected.steps, expected.head)


@pytest.mark.parametrize("way", ["left", "stopped", "ended"])
def test_a_run_that_was_given_back_does_nothing_more(tmp_path: Path, way: str) -> None:
    """Somebody else may have it by now."""
    run = start(config(tmp_path, "a", SMALL))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 3 and way != "ended":
            run.stop()
            if way == "left":
                break
    if way != "ended":
        finish(resume(run.folder))
    before = files_of(run.folder)
    with pytest.raises(RunFolderError, match="this Run was given back"):
        list(run.events())
    with pytest.raises(LedgerError, match="a branch record: the run was given back"):
        run.roll_back(START, "late", "Ada")
    assert files_of(run.folder) == before


def test_places_may_be_texts(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("[run]\nnum_steps = 2\n")
    options = {**SMALL, "run.folder": tmp_path, "run.name": "a"}
    del options["run.num_steps"]
    given = load_config(tmp_path / "a.toml", options)
    assert given == load_config([str(tmp_path / "a.toml")], {**options, "run.folder": str(tmp_path)})
    run = start(given)
    next(run.events())
    folder = str(run.folder)
    selftrain.resume(folder).ledger.close()
    with pytest.raises(RunFolderError, match="it has ended"):
        finish(resume(folder)) and resume(folder)
    assert read(folder).finished
    assert verify(folder).head == read(run.folder).head
    assert selftrain.write_report(folder).html == run.folder / "report.html"
    assert selftrain.evaluate(given, run.folder) == selftrain.evaluate(given, folder)
    with pytest.raises(ModelError, match="the toy policy is a table"):
        selftrain.export(folder, str(tmp_path / "exported"))


def test_an_evaluation_on_the_way_is_made_up_for(tmp_path: Path) -> None:
    run = start(config(tmp_path, "a", SMALL, evals__every_steps=4))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 3:
            run.stop()
    events = list(resume(tmp_path / "a").events())
    assert [event.name for event in events if isinstance(event, Evaluated)] == ["step-000004", "step-000008", "after"]


@pytest.mark.parametrize("at", ["validation-step-000006", "step-000009", "after"])
def test_no_evaluation_is_made_twice(tmp_path: Path, at: str) -> None:
    """The steps since the checkpoint are done again; killed between two checkpoints, or before the end was recorded."""
    options = {**SMALL, "run.checkpoint_every_steps": 6, "evals.every_steps": 3, "validation.task": "toy", "validation.num_problems": 8}
    run, made = start(config(tmp_path, "a", options)), []
    for event in run.events():
        made += [event.name] if isinstance(event, Evaluated) else []
        if at in made:
            break
    made += [event.name for event in resume(run.folder).events() if isinstance(event, Evaluated)]
    names = ["step-000003", "step-000006", "validation-step-000006", "step-000009", "validation-step-000012"]
    assert made == ["before", "validation-start", *names, "after"]
    assert [one["name"] for one in read(run.folder).evals()] == made


def test_changed_reference_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start(config(tmp_path, "a", SMALL, labels__source="reference")).ledger.close()
    real = compose.load_sets
    monkeypatch.setattr(
        "selftrain.run.load_sets", lambda config: compose.Problems(shuffled_truth(real(config).train), real(config).held_out, aside=real(config).aside)
    )
    with pytest.raises(RunFolderError, match="the reference answers"):
        resume(tmp_path / "a")


def test_changed_held_out_answers_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evaluations before and after would be of different truths; a run of an earlier version, which did not record the hash, goes on."""
    run = start(config(tmp_path, "a", SMALL))
    run.ledger.close()
    assert len(read(run.folder).environment["held_out_answers_hash"]) == 64
    real = compose.load_sets
    monkeypatch.setattr("selftrain.run.load_sets", lambda config: replace(real(config), held_out=shuffled_truth(real(config).held_out or real(config).train)))
    with pytest.raises(RunFolderError, match="the true answers of the held-out problems: they are not those the run was started with"):
        resume(tmp_path / "a")
    document = json.loads((tmp_path / "a" / "run.json").read_text())
    del document["environment"]["held_out_answers_hash"]
    (tmp_path / "a" / "run.json").write_text(json.dumps(document))
    assert finish(resume(tmp_path / "a")).reason == "done"


def test_a_changed_rule_of_the_users_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "my_rule.py"
    module.write_text("def rule(voted, label, index):\n    return 1.0\n")
    monkeypatch.syspath_prepend(tmp_path)
    start(config(tmp_path, "a", SMALL, reward__rule="my_rule:rule")).ledger.close()
    module.write_text("def rule(voted, label, index):\n    return 0.0  # changed\n")
    linecache.checkcache()
    with pytest.raises(RunFolderError, match="the functions of yours"):
        resume(tmp_path / "a")


def test_a_reference_run_says_so_in_every_group(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", SMALL, labels__source="reference"))
    record = read(outcome.folder)
    assert record.header["truth_channels"] == ["labels.source=reference"]
    assert all(one.label.uses_truth for step in record.group_steps() for one in record.groups(step))


def test_an_interrupted_run_ends_like_an_uninterrupted_one(tmp_path: Path) -> None:
    whole = start(config(tmp_path, "whole", SMALL))
    expected = finish(whole)
    run = start(config(tmp_path, "cut", SMALL))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 6:
            run.stop()
    assert isinstance(event, Outcome)
    assert (event.reason, event.steps) == ("interrupted", 7)
    again = resume(tmp_path / "cut")
    assert again.steps_done == 7
    outcome = finish(again)
    assert outcome.head == expected.head
    assert again.policy.weights_hash() == whole.policy.weights_hash()
    assert outcome.after == expected.after


@pytest.mark.parametrize("goes_on", [True, False])
def test_a_folder_that_another_run_takes_meanwhile_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, goes_on: bool) -> None:
    """Two runs that are started together find the same number free, and the second makes its folder after the first."""
    create = LedgerWriter.create

    def overtaken(folder: Place, header: Mapping[str, Any], environment: Mapping[str, Any]) -> LedgerWriter:
        monkeypatch.undo()
        others.append(create(folder, header, environment))
        if not goes_on:
            others[-1].close()
        return create(folder, header, environment)

    others: list[LedgerWriter] = []
    options = config(tmp_path, "a", SMALL)
    monkeypatch.setattr(LedgerWriter, "create", overtaken)
    run = start(options.model_copy(update={"run": options.run.model_copy(update={"name": None})}))
    assert run.folder == tmp_path / "train-0002"
    assert finish(run).folder == tmp_path / "train-0002"
    monkeypatch.setattr(LedgerWriter, "create", overtaken)
    with pytest.raises(RunFolderError):
        start(options)


def test_a_finished_run_is_not_resumed(recorded_run: RecordedRuns) -> None:
    with pytest.raises(RunFolderError, match="it has ended"):
        resume(recorded_run(SMALL).folder)


def test_a_damaged_checkpoint_is_refused_by_name_and_the_one_before_is_used(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    expected = recorded_run(SMALL)
    run = start(config(tmp_path, "cut", SMALL))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 7:
            break
    run.ledger.close()
    newest = tmp_path / "cut" / "checkpoints" / "step-000006" / "toy.json"
    newest.write_text(newest.read_text().replace("1", "2", 1))
    again = resume(tmp_path / "cut")
    assert [one.name for one in again.refused] == ["step-000006"]
    assert again.steps_done == 3
    assert finish(again).head == expected.head


def test_a_checkpoint_of_a_record_that_is_not_there_is_refused_by_name(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    """One of another run, and one whose record was cut off; the one before it is used."""
    expected = recorded_run(SMALL)
    for name, cut in (("foreign", False), ("cut", True)):
        run = start(config(tmp_path, name, SMALL))
        for event in run.events():
            if isinstance(event, StepReport) and event.metrics.step == 7:
                break
        run.ledger.close()
        chain = tmp_path / name / "ledger" / "chain.jsonl"
        if cut:
            at = next(entry for entry in read(tmp_path / name).entries if entry.step == 5 and entry.kind == "step")
            chain.write_bytes(chain.read_bytes()[: at.offset])
        else:
            other = train_to_end(config(tmp_path, "other", SMALL, run__seed=5)).folder
            shutil.copytree(other / "checkpoints" / "step-000012", tmp_path / name / "checkpoints" / "step-000012")
        again = resume(tmp_path / name)
        refused = "step-000006" if cut else "step-000012"
        assert [(one.name, one.reason) for one in again.refused] == [(refused, "the record it was made after is not in the ledger")]
        assert again.steps_done == (3 if cut else 6)
        assert finish(again).head == expected.head


def test_without_a_checkpoint_that_can_be_used_a_run_says_so(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    start(config(tmp_path, "a", SMALL)).ledger.close()
    shutil.copytree(recorded_run(SMALL).folder / "checkpoints", tmp_path / "a" / "checkpoints")
    with pytest.raises(CheckpointError, match=r"none of them can be used \(step-000012: the record it was made after is not in the ledger; "):
        resume(tmp_path / "a")


def test_a_changed_config_or_prompt_set_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(config(tmp_path, "a", SMALL))
    run.ledger.close()
    real = compose.load_sets
    with monkeypatch.context() as patch:
        patch.setattr("selftrain.run.load_sets", lambda config: compose.Problems(toy.problems(99), real(config).held_out, aside=real(config).aside))
        with pytest.raises(RunFolderError, match="the training prompts"):
            resume(tmp_path / "a")
    document = tmp_path / "a" / "run.json"
    document.write_text(document.read_text().replace('"num_steps":12', '"num_steps":13'))
    with pytest.raises(RunFolderError, match="config"):
        resume(tmp_path / "a")


def test_a_run_that_an_earlier_version_began_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its config lacks options that came later."""
    with monkeypatch.context() as patch:
        patch.setattr("selftrain.compose.deciding", lambda config: {name: values for name, values in deciding(config).items() if name != "views"})
        run = start(config(tmp_path, "a", SMALL))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 6:
            run.stop()
    assert "views" not in read(tmp_path / "a").header["config"]
    assert finish(resume(tmp_path / "a")).reason == "done"


def test_a_run_with_clustered_answers_is_replayed(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, "a", SMALL, labels__clustering="overlap"))
    found = replay(read(outcome.folder), read_config(outcome.folder))
    assert found.agrees
    assert found.num_verdicts == SMALL["run.num_steps"]


def test_options_of_the_loop_change_what_they_say(tmp_path: Path) -> None:
    six_steps = {**SMALL, "run.num_steps": 6}
    several = train_to_end(config(tmp_path, "a", six_steps, update__num_minibatches=2, update__num_epochs=2, objective__name="clipped", rollout__group_size=8))
    step = list(read(several.folder).steps())[5].metrics.values
    assert step["update/num_updates"] == 4
    assert step["update/ratio_max"] > 1.05
    assert all(len(one.trained) == 8 for one in read(several.folder).groups(5) if one.trained)
    in_reward = train_to_end(config(tmp_path, "b", six_steps, objective__kl_in="reward", objective__kl_coef=0.05))
    assert list(read(in_reward.folder).steps())[-1].metrics.values["reward/kl_penalty_mean_nats"] > 0
    in_loss = train_to_end(config(tmp_path, "c", six_steps, objective__kl_in="loss", objective__kl_estimator="k2", objective__kl_coef=0.05))
    assert list(read(in_loss.folder).steps())[-1].metrics.values["update/kl_loss_nats"] > 0


def test_a_kl_in_the_loss_is_measured_where_something_is_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    real = toy.ToyPolicy.reference_logprobs

    def counted(policy: toy.ToyPolicy, groups: Sequence[Group], temperature: float) -> Any:
        asked.append(sum(len(group.completions) for group in groups))
        return real(policy, groups, temperature)

    monkeypatch.setattr(toy.ToyPolicy, "reference_logprobs", counted)
    options = {**SMALL, "run.num_steps": 6, "probes.num_prompts": 0, "rollout.group_size": 8, "objective.kl_estimator": "k2", "objective.kl_coef": 0.05}
    ledger = read(train_to_end(config(tmp_path, "a", options, objective__kl_in="loss")).folder)
    trained = [sum(len(one.trained) for one in ledger.groups(step)) for step in range(6)]
    assert asked == [number for number in trained if number]
    assert sum(asked) < sum(len(one.voted.group.completions) for step in range(6) for one in ledger.groups(step))
    asked.clear()
    train_to_end(config(tmp_path, "b", options, objective__kl_in="reward"))
    assert asked == [sum(len(one.voted.group.completions) for one in ledger.groups(0))] * 6


def test_a_kl_of_weight_0_is_measured_and_changes_nothing(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    plain = recorded_run(SMALL)
    measured = train_to_end(config(tmp_path, "measured", SMALL, objective__kl_in="reward", objective__kl_coef=0.0))
    assert Path(measured.path, "toy.json").read_bytes() == Path(plain.path, "toy.json").read_bytes()
    values = [step.metrics.values for step in read(measured.folder).steps()]
    assert values[0]["reward/kl_penalty_mean_nats"] == pytest.approx(0, abs=1e-6)
    assert values[-1]["reward/kl_penalty_mean_nats"] > 0.01
    assert replay(read(measured.folder), read_config(measured.folder)).agrees


@pytest.mark.timeout(120)
def test_killed_ten_times_it_ends_with_the_same_ledger_and_weights(tmp_path: Path) -> None:
    options = {**SMALL, "run.num_steps": 100}
    expected = train_to_end(config(tmp_path, "whole", options))
    assert killed_and_resumed(config(tmp_path, "cut", options), times=10, max_events=8) == 10
    assert read(tmp_path / "cut").head == expected.head
    name = f"checkpoints/{expected.handed_over}/toy.json"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
