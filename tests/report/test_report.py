"""Reports of real runs: finished, halted, under way, empty; with completions that try to be markup."""

from __future__ import annotations

import dataclasses
import os
import shlex
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from selftrain import control
from selftrain.cli.app import app
from selftrain.cli.options import overrides
from selftrain.cli.train_command import command as train_command
from selftrain.compose import HELD_OUT_ANSWERS
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.evals import Interval, gained_and_lost, paired_difference
from selftrain.guard import Doubts
from selftrain.guard.doubts import Support
from selftrain.handover import START
from selftrain.ledger import read
from selftrain.policies import toy
from selftrain.query import Database
from selftrain.report import read_record, write_comparison, write_report
from selftrain.report.card import model_card
from selftrain.report.contested import contested
from selftrain.report.cost import cost_of
from selftrain.report.labels import labels_of
from selftrain.report.limits import limits_of
from selftrain.report.render import cell, code, fence
from selftrain.report.repeat import command_line
from selftrain.report.side_by_side import OTHER_PROBLEMS, SAME_PROBLEMS, compare
from selftrain.report.view import view_of
from selftrain.report.words import (
    NO_EVIDENCE,
    UNKNOWN,
    count,
    duration,
    energy,
    guard_sentence,
    handover_sentence,
    percent,
    points,
    rollback_sentences,
    verdict_sentences,
)
from selftrain.run import Outcome, start, train_to_end
from selftrain.train import StepReport
from selftrain.types import Action, Finding, Verdict
from tests.recorded import RecordedRuns

SMALL = {"rollout.prompts_per_step": 6, "rollout.num_votes": 8, "evals.num_problems": 24, "evals.num_samples": 4}
LEARNS = {
    "policy.model": "toy",
    "labels.source": "majority",
    "update.learning_rate": 0.1,
    "run.num_steps": 12,
    "run.checkpoint_every_steps": 4,
    "evals.every_steps": 4,
    **SMALL,
}
COLLAPSES = {
    "policy.model": "toy:weak",
    "labels.source": "majority",
    "update.learning_rate": 1.5,
    "update.warmup_steps": 0,
    "run.num_steps": 60,
    "run.checkpoint_every_steps": 2,
    "evals.num_problems": 24,
}
COLLAPSES |= {"guard.action": "halt", "probes.num_prompts": 0}  # the rules about steps see this collapse one window later than a probe
HOSTILE = "</pre><script>alert(1)</script> ````\n``` & \x00\x1b[31m |cell| \ud800 #### "


class Page(HTMLParser):
    """Collects tags, texts and everything that would be fetched; knows whether tags close in order."""

    VOID = ("meta", "rect", "line", "circle", "polyline", "br", "path")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "action", "data")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "circle", "path"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def config(folder: Path, options: dict[str, Any]) -> RunConfig:
    return load_config((), {**options, "run.folder": str(folder)})


def reported(folder: Path) -> tuple[Page, str]:
    report = write_report(folder)
    html = report.html.read_text("utf-8")
    page = Page(html)
    assert page.open == []
    assert page.links == []
    assert "script" not in page.tags
    assert "http" not in html.replace("http-equiv", "")
    assert len(html) < 5_000_000
    return page, report.markdown.read_text("utf-8")


def test_a_finished_run(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(LEARNS)
    page, markdown = reported(outcome.folder)
    assert outcome.before is not None
    assert outcome.after is not None
    for text in (page.text, markdown):
        assert "finished, 12 steps" in text
        assert "The guard judged 12 steps and found no sign of reward hacking." in text
        assert "Handed over: checkpoint step-000012, the newest one." in text
        assert "Label-free: no true answer reaches training" in text
        assert percent(outcome.before.avg) in text
        assert percent(outcome.after.maj) in text
        assert "One run with one seed (0)" in text
        assert "selftrain train --policy.model toy " in text
        assert read(outcome.folder).head in text
        assert "on the same kind of machine, the record then ends with the same head." in text
    assert page.tags.count("figure") == 12
    assert page.text.count("Accuracy on held-out problems") == 1
    assert "better" not in page.text
    assert "better" not in markdown


def test_accuracy_is_drawn_at_the_steps_where_it_was_evaluated(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(LEARNS)
    _, markdown = reported(outcome.folder)
    row = next(line for line in markdown.splitlines() if line.startswith("| Accuracy on held-out problems, avg@4"))
    assert [part.split(")")[0] for part in row.split("(step ")[1:]] == ["0", "4", "8", "12"]


def test_a_halted_run_says_why_and_what_is_handed_over(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(COLLAPSES)
    assert outcome.reason == "halted"
    record = read_record(outcome.folder)
    assert record.handed_over == outcome.handed_over
    assert record.handed_over_path == outcome.path
    page, markdown = reported(outcome.folder)
    halted, looked = record.verdicts[-1], record.config.guard.window_steps
    for text in (page.text, markdown):
        assert f"halted by the guard after {outcome.steps} of 60 steps" in text
        assert f"The guard halted the run at step {halted.step}, before that step's update." in text
        assert "different prompts get the same answer" in text
        assert "constant_answer" in text
        assert "for example" in text
        since = f"of those from before the {looked} steps up to step {record.harm_since_step} (from there on every verdict speaks of harm) the newest"
        assert f"Handed over: checkpoint {outcome.handed_over}, {since}" in text
        assert "first found" not in text
    at_start = handover_sentence(dataclasses.replace(record, handed_over=START))
    until = f"the {looked} steps up to step {record.harm_since_step} (from there on every verdict speaks of harm)"
    assert at_start.endswith(f"because nothing speaks for a checkpoint from before {until}.")
    untrained = tuple(dataclasses.replace(step, values={}) for step in record.steps)
    at_start = handover_sentence(dataclasses.replace(record, handed_over=START, steps=untrained))
    assert at_start.endswith("because nothing was trained in the steps that count: no group had a label and an advantage other than 0.")
    assert "halt" in page.tags or 'class="card verdict halt"' in (outcome.folder / "report.html").read_text("utf-8")
    assert 'class="span halt"' in (outcome.folder / "report.html").read_text("utf-8")


@pytest.mark.parametrize("action", ["off", "warn"])
def test_an_unfinished_run_names_what_the_run_itself_would_hand_over(tmp_path: Path, action: str) -> None:
    """With the guard off nothing is held against a checkpoint; a person who overrules it at step 6 has what was seen before forgotten."""
    run = start(config(tmp_path, {**LEARNS, "run.checkpoint_every_steps": 2, "update.learning_rate": 0.01, "guard.action": action}))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 3:
            control.ask(run.folder, control.OVERRULE, "Ada", "it is meant to be so")
        if isinstance(event, StepReport) and event.metrics.step == 9:
            break
    run.ledger.close()
    requests = [one.refused for one in read_record(run.folder).ledger.requests()]
    assert len(requests) == 1
    assert bool(requests[0]) == (action == "off")
    assert read_record(run.folder).handed_over == "step-000010"
    assert "on the same kind of machine, the record is then the same until a person made a request, after 4 steps." in reported(run.folder)[1]


def test_a_checkpoint_that_was_recorded_and_not_saved_is_not_handed_over(tmp_path: Path) -> None:
    run = start(config(tmp_path, {**LEARNS, "run.checkpoint_every_steps": 2, "probes.num_prompts": 8}))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == 3:
            break
    run.ledger.close()
    folder = run.folder / "checkpoints"
    assert read_record(run.folder).handed_over == "step-000004"
    shutil.rmtree(folder / "step-000004")
    assert read_record(run.folder).handed_over == "step-000002"
    shutil.rmtree(folder / "step-000002")
    assert read_record(run.folder).handed_over == START


def test_a_start_that_is_handed_over_counts_as_after(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, {**COLLAPSES, "run.checkpoint_every_steps": 50}))
    assert outcome.handed_over == START
    record = read_record(outcome.folder)
    assert record.handed_over == START
    assert record.evaluation("after") == record.evaluation("before")
    text = reported(outcome.folder)[1]
    assert "Handed over: the model as it was at the start (toy:weak)" in text
    assert f"{percent(record.evaluation('before').avg)}, as at the start, which is what is handed over." in text  # type: ignore[union-attr]


def test_a_run_under_way_and_an_empty_one(tmp_path: Path) -> None:
    run = start(config(tmp_path, LEARNS))
    page, markdown = reported(run.folder)
    assert "not finished: 0 of 12 steps" in page.text
    assert "No step is done yet." in markdown
    assert "Nothing was evaluated: accuracy is unknown." in page.text
    steps = 0
    for event in run.events():
        steps += isinstance(event, StepReport)
        if steps == 3:
            break
    page, markdown = reported(run.folder)
    run.ledger.close()
    assert "not finished: 3 of 12 steps" in markdown
    assert "The guard has not judged yet: it needs 6 steps and has 3." in page.text
    assert "The run has no end yet, so nothing is handed over." in page.text
    assert "Everything here may change." in markdown
    for text in (page.text, markdown):
        assert "on the same kind of machine, the record then begins as this one, which has no end yet." in text


def test_a_run_without_held_out_problems_claims_nothing(tmp_path: Path) -> None:
    run = start(config(tmp_path, LEARNS))
    run.problems = dataclasses.replace(run.problems, held_out=None)
    outcome = next(event for event in run.events() if isinstance(event, Outcome))
    page, _ = reported(outcome.folder)
    assert "no evidence of harm, and no evidence of gain either" in page.text
    assert "Nothing was evaluated" in page.text
    assert "better" not in page.text.replace("became better or worse", "")


def test_hostile_completions_are_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toy, "STYLES", (HOSTILE, "thus ", "<img src=x onerror=alert(1)> "))
    outcome = train_to_end(config(tmp_path, {**LEARNS, "run.num_steps": 2}))
    page, markdown = reported(outcome.folder)
    assert "img" not in page.tags
    assert "</pre><script>alert(1)</script>" in page.text
    assert "\x1b" not in markdown
    assert "␛[31m" in markdown
    inside = False
    for line in markdown.splitlines():
        if line.startswith("`````"):
            inside = not inside
        elif "<script>" in line:
            assert inside


def test_truth_and_warnings_are_named(tmp_path: Path) -> None:
    options = {**LEARNS, "labels.source": "reference", "guard.action": "off", "run.num_steps": 3, "labels.min_share_frac": 0.0}
    outcome = train_to_end(config(tmp_path, options))
    page, markdown = reported(outcome.folder)
    assert "decided by true answers (labels.source = reference). Not label-free: true answers reach it through labels.source=reference." in page.text
    assert "guard.action was off: nothing would have stopped a collapse." in markdown
    assert "The guard was off: nobody looked for reward hacking." in page.text


def test_the_command_line_repeats_the_config(tmp_path: Path) -> None:
    given = {**LEARNS, "rollout.stop": ("a b", "'"), "policy.chat_template_args": {"x": [1, None]}, "policy.gradient_checkpointing": True, "prompts.count": 30}
    made = load_config((), given)
    words = shlex.split(command_line(made))
    assert words[:2] == ["selftrain", "train"]
    context = train_command.make_context("train", words[2:], parent=click.Context(app, info_name="selftrain", **app.context_settings))
    options = {name: value for name, value in context.params.items() if name not in ("files", "log")}
    assert load_config((), overrides(options)) == made


def test_contested_groups_are_the_closest_calls_of_the_last_steps(recorded_run: RecordedRuns) -> None:
    ledger = read(recorded_run(LEARNS).folder)
    found = contested(ledger)
    margins = [(group.votes[0][1] - group.votes[1][1]) for group in found]
    assert margins == sorted(margins)
    assert {group.step for group in found} <= set(range(7, 12))
    assert len({group.prompt_id for group in found}) == len(found)
    every = [one.voted.vote for step in range(7, 12) for one in ledger.groups(step) if len(one.voted.vote.counts) > 1]
    assert margins[0] == min(vote.counts[0][1] - vote.counts[1][1] for vote in every)
    tied = next(group for group in found if group.outcome == "tie")
    assert all(completion.reward is None and completion.reason == "tie" for completion in tied.completions)
    assert sum(width for _, width, _ in found[0].bar) == pytest.approx(100, abs=0.1)


def test_labels_are_shares_of_all_groups_with_who_decided(recorded_run: RecordedRuns) -> None:
    ledger = read(recorded_run(LEARNS).folder)
    with Database(ledger) as database:
        found = labels_of(database)
    assert (found.num_groups, found.num_steps) == (72, 12)
    for shares in (found.outcomes, found.admissions, found.rewards):
        assert sum(value for _, value in shares) == pytest.approx(1)
    groups = [group for step in range(12) for group in ledger.groups(step)]
    assert dict(found.outcomes)["decided"] == sum(group.label.is_decided for group in groups) / 72
    assert [(one.source, one.decided_by, one.uses_truth, one.share) for one in found.provenance] == [("majority", "vote", False, 1.0)]
    labels: dict[str, list[str]] = {}
    for group in groups:
        if group.label.key is not None:
            labels.setdefault(group.voted.group.prompt.id, []).append(group.label.key)
    assert found.num_changed == sum(len(set(keys)) > 1 for keys in labels.values())
    assert {one.prompt_id: list(one.keys) for one in found.changed} == {one.prompt_id: labels[one.prompt_id] for one in found.changed}


def test_the_cost_adds_up_and_the_energy_says_what_it_assumes(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, {**LEARNS, "policy.num_threads": 2}))
    record = read_record(outcome.folder)
    with Database(record.ledger) as database:
        cost = cost_of(record, database)
    votes = [one for step in range(12) for group in record.ledger.groups(step) for one in group.voted.group.completions]
    probed = [one for step in range(12) for group in record.ledger.probed(step) for one in group.group.completions]
    completions = [*votes, *probed]
    assert (cost.completions, cost.sampled_tokens) == (len(completions), sum(len(one.token_ids) for one in completions))
    assert cost.learned_tokens == sum(step.values.get("update/num_tokens", 0) for step in record.steps)
    assert outcome.before is not None
    assert cost.evaluated_tokens == 2 * 24 * 4 * 4  # before, after and two on the way; every completion of the toy policy has two tokens
    assert cost.watts == 20
    assert cost.energy_wh == pytest.approx(cost.seconds * 20 / 3600)
    assert cost.tokens_per_second == pytest.approx(sum(len(one.token_ids) for one in votes) / {name: seconds for name, seconds, _ in cost.stages}["sample"])
    page, markdown = reported(outcome.folder)
    for text in (page.text, markdown):
        assert f"{count(cost.sampled_tokens)} tokens sampled" in text
        assert "An estimate from the clock, not a measurement: it assumes 10 W for each of 2 CPU threads" in text
        assert "The distance to the start (KL) was measured at probes alone" in text


def test_no_evidence_of_harm_is_claimed_only_without_a_finding(recorded_run: RecordedRuns) -> None:
    record = read_record(recorded_run(LEARNS, probes__num_prompts=0).folder)
    said = "Handed over: checkpoint step-000012, the newest one."
    assert handover_sentence(record) == f"{said} The guard saw no evidence of harm."
    back = dataclasses.replace(record, evaluations=())
    assert verdict_sentences(back)[-1] == NO_EVIDENCE
    for rule in ("drift_budget", "constant_answer"):
        last = dataclasses.replace(record.verdicts[-1], action=Action.WARN, findings=(Finding(rule, 2.0, 1.0, 5, "seen"),))
        found = dataclasses.replace(back, verdicts=(*record.verdicts[:-1], last))
        assert handover_sentence(found) == said
        assert verdict_sentences(found)[-1] == UNKNOWN
    halted = dataclasses.replace(read_record(recorded_run(COLLAPSES).folder), evaluations=())
    assert verdict_sentences(halted)[-1] == UNKNOWN


def test_checkpoints_that_a_probe_speaks_against_are_named_where_an_older_one_is_handed_over(recorded_run: RecordedRuns) -> None:
    record = read_record(recorded_run(COLLAPSES).folder)
    biased = dataclasses.replace(
        record.verdicts[10], findings=(Finding("bias", 0.2, 0.15, 5, "it depends on who"), Finding("flips", 0.7, 0.6, 5, "labels drift"))
    )
    verdicts = (*record.verdicts[:10], biased, *record.verdicts[11:])
    doubts = dataclasses.replace(record.doubts, blocked_steps=(10,), supports=(Support(0, 0.4, 0.0), Support(8, 0.6, 0.02)))
    said = handover_sentence(dataclasses.replace(record, verdicts=verdicts, doubts=doubts, handed_over="step-000008"))
    assert said.startswith("Handed over: checkpoint step-000008, of those from before the 5 steps up to step 17 (")
    why = "; 1 is left out, whose probe is worse than the base's (bias)."
    assert said.endswith(f") the newest whose support is the largest but for its standard error{why}")
    assert handover_sentence(dataclasses.replace(record, verdicts=verdicts, doubts=doubts, handed_over=START)).endswith(f"surely gained on the start{why}")
    assert "left out" not in handover_sentence(dataclasses.replace(record, doubts=dataclasses.replace(doubts, blocked_steps=(15,))))


def test_why_later_checkpoints_are_not_handed_over(recorded_run: RecordedRuns) -> None:
    """A larger support that is not surely larger is no smaller one."""
    record = dataclasses.replace(read_record(recorded_run(LEARNS).folder), handed_over="step-000004")
    supports = (Support(0, 0.4, 0.0), Support(4, 0.45, 0.01), Support(8, 0.5, 0.2), Support(12, 0.5, 0.2))
    doubts = Doubts(supports=supports)
    assert [doubts.best_of(steps) for steps in ([4], [4, 8, 12])] == [4, 4]
    unsure = "Handed over: checkpoint step-000004: what came later has not surely more of the start's vote behind its answers"
    assert handover_sentence(dataclasses.replace(record, doubts=doubts)) == f"{unsure}."
    found = tuple(dataclasses.replace(one, findings=(Finding("off_domain", 1.0, 0.0, 5, "far"),) if one.step >= 9 else ()) for one in record.verdicts)
    blocked = dataclasses.replace(record, verdicts=found, doubts=dataclasses.replace(doubts, blocked_steps=(9, 10, 11)))
    worse = "has a probe that is worse than the base's (off_domain)."
    assert handover_sentence(blocked) == f"{unsure}, or {worse}"
    blocked = dataclasses.replace(blocked, doubts=Doubts(blocked_steps=(7, 8, 9, 10, 11)))
    assert handover_sentence(blocked) == f"Handed over: checkpoint step-000004: what came later {worse}"


def test_a_guard_that_was_overruled_is_told_with_the_reason_and_since_when_it_counts(tmp_path: Path) -> None:
    run = start(config(tmp_path, {**COLLAPSES, "guard.action": "warn", "run.num_steps": 26}))
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step in (17, 19):
            control.ask(run.folder, control.OVERRULE, "Ada", "one *answer*\nis right")
    record = read_record(run.folder)
    assert [one.step for one in record.overruled] == [18, 20]
    page, markdown = reported(run.folder)
    told = "A person overruled the guard after 18 steps (Ada: one *answer* is right) and after 20 steps (Ada: one *answer* is right). "
    told += "What it had found in 1 step, first at step 17, is overruled: different prompts get the same answer"
    for text in (page.text, markdown):
        assert told in text
        assert "In the 6 steps since it was overruled, the guard found no sign of reward hacking." in text
        assert "warn, overruled" in text
        assert "saw no evidence of harm" not in text
    assert "(Ada: one \\*answer\\* is right)" in model_card(record, record.handed_over)
    assert dict(compare([record, record]).ended)["guard"][1].startswith("A person overruled the guard")
    early = dataclasses.replace(record, verdicts=record.verdicts[:22])
    assert guard_sentence(early) == "Since it was overruled, the guard has not judged yet: it needs 6 steps and has 2."
    findings = (Finding("noise", 0.7, 0.5, 5, "it rambles"),)
    again = dataclasses.replace(record, verdicts=(*record.verdicts[:25], dataclasses.replace(record.verdicts[25], action=Action.WARN, findings=findings)))
    assert guard_sentence(again).startswith("The guard warned in 1 of 6 steps since it was overruled, first at step 25: it rambles")


def test_what_the_guard_needs_is_the_larger_of_its_windows_and_probes_judge_before(recorded_run: RecordedRuns) -> None:
    wide = recorded_run(LEARNS, run__num_steps=8, guard__window_steps=10, probes__num_prompts=0)
    assert guard_sentence(read_record(wide.folder)) == "The guard has not judged yet: it needs 10 steps and has 8."
    probed = read_record(recorded_run(LEARNS, run__num_steps=4, probes__every_steps=2).folder)
    assert [verdict.step for verdict in probed.verdicts if verdict.health is not None] == [2, 3]
    assert guard_sentence(probed) == "The guard judged 2 of 4 steps, by probes alone, and found no sign of reward hacking."


def test_every_finding_has_a_line_of_its_own_in_markdown(recorded_run: RecordedRuns) -> None:
    markdown = reported(recorded_run(COLLAPSES).folder)[1]
    lines = markdown.partition("\n## Guard\n")[2].partition("\n## Labels\n")[0].split("\n")
    assert [line[:9] for line in lines] == ["", "- Steps 1", "- Step 19", ""]
    assert all("; for example `" in line for line in lines[1:3])


def test_a_short_run_that_went_back_does_not_say_that_nobody_ever_judged(tmp_path: Path) -> None:
    more = {"guard.action": "roll_back", "update.learning_rate": 6.0, "run.num_steps": 5, "probes.num_prompts": 48, "rollback.factor": 0.02}
    outcome = train_to_end(config(tmp_path, {**COLLAPSES, **more}))
    page, markdown = reported(outcome.folder)
    for text in (page.text, markdown):
        assert "Rolled back once" in text
        assert "Since the run went back, the guard judged 1 of 5 steps, by probes alone, and found no sign of reward hacking." in text
    record = read_record(outcome.folder)
    unjudged = dataclasses.replace(record, verdicts=tuple(dataclasses.replace(verdict, health=None) for verdict in record.verdicts))
    assert guard_sentence(unjudged) == "Since the run went back, the guard has not judged yet: it needs 6 steps and has 5."
    rolled_back = rollback_sentences(record)[0]
    assert dict(compare([record, record]).ended)["guard"][1].startswith(f"{rolled_back} Since the run went back, the guard")
    assert f"- {cell(rolled_back)}\n" in model_card(record, record.handed_over)
    assert view_of(record).mood == "warn"


def test_the_frame_of_the_verdict_is_green_where_nothing_speaks_against_the_run(recorded_run: RecordedRuns) -> None:
    view = view_of(read_record(recorded_run(LEARNS).folder))
    assert view.mood == "good"
    row = view.outcome[0]
    loss, chance = (dataclasses.replace(row, difference=Interval(-0.1, -0.2, high)) for high in (-0.01, 0.01))
    assert dataclasses.replace(view, outcome=(loss,)).mood == "warn"
    assert dataclasses.replace(view, outcome=(chance,)).mood == "good"


def test_what_was_left_behind_costs_too(tmp_path: Path) -> None:
    options = {name: value for name, value in COLLAPSES.items() if name != "guard.action"}
    outcome = train_to_end(config(tmp_path, {**options, "rollback.factor": 0.9, "probes.num_prompts": 12}))
    record = read_record(outcome.folder)
    assert record.ledger.branches
    with Database(record.ledger) as database:
        cost = cost_of(record, database)
    ledger = record.ledger
    places = ledger.group_keys(rolled_back=True)
    votes = sum(len(done.token_ids) for branch, step in places for one in ledger.groups(step, branch) for done in one.voted.group.completions)
    probed = sum(len(done.token_ids) for branch, step in places for one in ledger.probed(step, branch) for done in one.group.completions)
    assert 0 < cost.left_tokens < votes + probed == cost.sampled_tokens + cost.left_tokens
    assert cost.probe_tokens == probed > 0
    assert cost.tokens_per_second == pytest.approx(votes / {name: seconds for name, seconds, _ in cost.stages}["sample"])
    page, markdown = reported(outcome.folder)
    for text in (page.text, markdown):
        assert f"{count(cost.left_tokens)} more in steps that were left behind" in text


def test_kl_is_drawn_where_it_was_measured(tmp_path: Path) -> None:
    options = {**LEARNS, "run.num_steps": 3, "objective.kl_in": "loss", "objective.kl_coef": 0.01, "objective.kl_estimator": "k3"}
    page, _ = reported(train_to_end(config(tmp_path, options)).folder)
    assert "KL to the start" in page.text
    assert "was not measured" not in page.text
    measured, _ = reported(train_to_end(config(tmp_path, {**LEARNS, "run.num_steps": 3, "objective.kl_in": "reward", "objective.kl_coef": 0})).folder)
    assert "KL to the start" in measured.text
    without, _ = reported(train_to_end(config(tmp_path, {**LEARNS, "run.num_steps": 3})).folder)
    assert "--objective.kl-in reward --objective.kl-coef 0 measures it" in without.text
    without, _ = reported(train_to_end(config(tmp_path, {**LEARNS, "run.num_steps": 3, "run.name": "without", "probes.num_prompts": 0})).folder)
    assert "The distance to the start (KL) was not measured" in without.text


def test_the_guard_has_a_time_axis_with_checkpoints(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(COLLAPSES)
    html = write_report(outcome.folder).html.read_text("utf-8")
    strip = html[html.index('class="chart timeline"') :].partition("</svg>")[0]
    assert f"{outcome.steps} verdicts of the guard, 3 of them with a finding" in strip
    assert strip.count('class="span halt full"') == 1
    assert strip.count('class="handed"') == 1
    assert f"checkpoint {outcome.handed_over}, handed over" in strip
    assert strip.count('class="mark"') == len(list(read(outcome.folder).checkpoints())) - 1


def test_problems_gained_and_lost_are_shown_with_their_completions(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(COLLAPSES)
    record = read_record(outcome.folder)
    before, after = record.evaluation("before"), record.evaluation("after")
    assert before is not None
    assert after is not None
    assert len(before.examples) == 24
    page, markdown = reported(outcome.folder)
    lost = [one for one in before.examples if f"{one.prompt_id} lost" in page.text]
    assert 0 < len(lost) <= 4
    fallen = {old.prompt_id: (old, new) for old, new in zip(before.results, after.results, strict=True)}
    falls = [
        fallen[one.prompt_id][0].num_right - fallen[one.prompt_id][1].num_right
        for one in before.examples
        if one.prompt_id in gained_and_lost(before, after).lost
    ]
    shown = [fallen[one.prompt_id] for one in lost]
    assert sorted((old.num_right - new.num_right for old, new in shown), reverse=True) == sorted(falls, reverse=True)[: len(lost)]
    for old, new in shown:
        for text in (page.text, markdown):
            assert f"Before: {old.num_right} of 16 right, vote right ({100 * old.share_frac:.0f} % of the votes). " in text
            assert f"After: {new.num_right} of 16 right, vote {new.vote} ({100 * new.share_frac:.0f} % of the votes)." in text
    texts = {one.prompt_id: one.completions[0].text for one in after.examples}
    assert all(texts[one.prompt_id] in page.text and one.completions[0].text in page.text for one in lost)


def test_runs_are_compared_with_the_first_one(tmp_path: Path) -> None:
    control = train_to_end(config(tmp_path, {**LEARNS, "labels.source": "reference", "run.name": "control"}))
    other = train_to_end(config(tmp_path, {**LEARNS, "run.name": "vote"}))
    empty = start(config(tmp_path, {**LEARNS, "run.name": "empty"}))
    empty.ledger.close()
    report = write_comparison([control.folder, other.folder, empty.folder], tmp_path)
    page, markdown = Page(report.html.read_text("utf-8")), report.markdown.read_text("utf-8")
    assert page.open == []
    assert page.links == []
    assert control.after is not None
    assert other.after is not None
    for text in (page.text, markdown):
        assert percent(other.after.avg).split(" [")[0] in text
        assert "Differences to control, the first run given" in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in markdown.splitlines() if line.startswith("|")]
    by_name = {row[0]: row[1:] for row in rows}
    assert by_name["labels.source"] == ["reference", "majority", "majority"]
    assert "run.num\\_steps" not in by_name
    difference = points(paired_difference(control.after, other.after, "avg"))
    assert by_name["avg@4"] == ["control", difference.replace("[", "\\[").replace("]", "\\]"), "-"]
    assert other.before is not None
    gain = points(paired_difference(other.before, other.after, "maj"))
    assert by_name["maj@4 after minus before"][1:] == [gain.replace("[", "\\[").replace("]", "\\]"), "-"]
    assert by_name["label-free"] == ["no: labels.source=reference", "yes", "yes"]
    assert "empty: The run has no end in its record" in page.text


def test_runs_with_other_problems_are_not_subtracted(tmp_path: Path) -> None:
    runs = [train_to_end(config(tmp_path, {**LEARNS, "run.num_steps": 1, "evals.num_problems": number})).folder for number in (8, 12)]
    text = write_comparison(runs, tmp_path / "made").markdown.read_text("utf-8")
    assert OTHER_PROBLEMS in text


def test_runs_with_other_true_answers_are_not_subtracted(recorded_run: RecordedRuns) -> None:
    record = read_record(recorded_run(LEARNS).folder)
    ours, theirs, unsaid = (dataclasses.replace(record, environment=said) for said in ({HELD_OUT_ANSWERS: "a"}, {HELD_OUT_ANSWERS: "b"}, {}))
    assert compare([ours, theirs]).to_control_words == OTHER_PROBLEMS
    assert compare([ours, ours]).to_control_words == compare([ours, unsaid]).to_control_words == SAME_PROBLEMS
    assert all(cells[1] == "-" != cells[2] for _, cells in compare([ours, theirs, ours]).to_control)


def test_the_card_has_metadata_that_yaml_reads(recorded_run: RecordedRuns) -> None:
    outcome = recorded_run(LEARNS)
    record = read_record(outcome.folder)
    front = yaml.safe_load(model_card(record, outcome.handed_over).split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "as-base-model-and-prompts")
    assert front["tags"] == ["selftrain", "label-free"]
    assert outcome.after is not None
    metrics = front["model-index"][0]["results"][0]["metrics"]
    assert metrics[0] == {"type": "accuracy", "name": "avg@4", "value": round(100 * outcome.after.avg.value, 1)}
    other = yaml.safe_load(model_card(record, "step-000004").split("---")[1])
    assert "model-index" not in other


def test_a_run_in_which_a_person_asked_for_something_says_so(tmp_path: Path, recorded_run: RecordedRuns) -> None:
    """In its report, and on the card of its model."""
    run = start(config(tmp_path, {**LEARNS, "run.num_steps": 6, "run.checkpoint_every_steps": 2, "probes.num_prompts": 0}))
    for event in run.events():
        if isinstance(event, StepReport) and (run.ledger.branch, event.metrics.step) == (0, 4):
            control.ask(run.folder, control.ROLL_BACK, "Ada", "it *began*\nto guess", "step-000002")
    card = model_card(read_record(run.folder), "step-000004")
    assert "- Rolled back once: after 5 steps to step-000002, by Ada: it \\*began\\* to guess. The steps left behind" in card
    asked = "- Somebody asked for something while it ran (roll_back after 5 steps): the command alone does not repeat it.\n"
    report = write_report(run.folder)
    assert asked in card
    assert asked in report.markdown.read_text("utf-8")  # type: ignore[union-attr]
    unasked = recorded_run(LEARNS).folder
    assert not any(words in model_card(read_record(unasked), "step-000004") for words in ("Rolled back", "asked for"))


def test_a_long_run_is_reported_within_seconds(tmp_path: Path) -> None:
    """100 steps of 64 prompts x 16 completions: 102,400."""
    run = start(config(tmp_path, {**LEARNS, "rollout.prompts_per_step": 64, "rollout.num_votes": 16, "run.num_steps": 100, "probes.num_prompts": 0}))
    events = run.events()
    reports = [event for _, event in zip(range(2), events, strict=False) if isinstance(event, StepReport)]
    scored = reports[0].scored
    for step in range(1, 100):
        groups = [dataclasses.replace(one.voted.group, step=step) for one in scored]
        moved = [dataclasses.replace(one, voted=dataclasses.replace(one.voted, group=group)) for one, group in zip(scored, groups, strict=True)]
        run.ledger.append_groups(step, moved)
        run.ledger.append_step(dataclasses.replace(reports[0].metrics, step=step), {})
    run.ledger.close()
    begin = time.perf_counter()
    page, _ = reported(run.folder)
    assert time.perf_counter() - begin < 10
    assert "All 6,400 groups of 100 steps." in page.text
    assert "102,400, " in page.text


def test_a_report_stays_small_however_long_and_troubled_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """5,000 steps, a finding in every second one."""
    monkeypatch.setattr(os, "fsync", lambda _: None)  # this record need not survive a power cut
    run = start(config(tmp_path, {**LEARNS, "guard.action": "warn", "rollout.prompts_per_step": 1, "rollout.num_votes": 4, "run.num_steps": 5_000}))
    events = run.events()
    first = next(event for event in events if isinstance(event, StepReport))
    finding = Finding("constant_answer", 0.9, 0.5, 5, "different prompts get the same answer")
    for step in range(1, 5_000):
        run.ledger.append_verdict(Verdict(step, Action.WARN if step % 2 else Action.CONTINUE, (finding,) if step % 2 else ()))
        values = first.metrics.values | {"vote/share_mean_frac": 0.987 if step == 2_345 else 0.25}
        run.ledger.append_step(dataclasses.replace(first.metrics, step=step, values=values), {})
    run.ledger.close()
    page, markdown = reported(run.folder)
    html = (run.folder / "report.html").read_text("utf-8")
    assert len(html) < 300_000
    assert "2476 more between these" in page.text
    assert "2476 more between these" in markdown
    assert "steps 4999" not in page.text
    assert "step 4999: different prompts get the same answer" in page.text
    strip = html[html.index('class="chart timeline"') :].partition("</svg>")[0]
    assert "2500 of them with a finding" in strip
    assert 40 <= strip.count('class="span warn full"') <= 130
    peak = round(12 + (190 - 12 - 26) * (1 - 0.987), 1)
    vote = next(part for part in html.split("<figure") if "Vote <span>" in part)
    assert f",{peak} " in vote


def test_limits_write_percent_as_the_tables_do(recorded_run: RecordedRuns) -> None:
    record = read_record(recorded_run(LEARNS).folder)
    values = {"completion/truncated_frac": 0.126, "vote/read_mean_frac": 0.8, "label/decided_frac": 0.5}
    step = dataclasses.replace(record.steps[-1], values={**record.steps[-1].values, **values})
    said = " ".join(limits_of(dataclasses.replace(record, steps=(step,))))
    for words in ("13 % of the last completions were cut off", "could be read in 20 % of", "50 % of the last groups had no decided label"):
        assert words in said


def test_numbers_in_words() -> None:
    assert percent(Interval(0.512, 0.47, 0.553)) == "51.2 % [47.0, 55.3]"
    assert points(Interval(-0.02, -0.05, 0.01)) == "-2.0 points [-5.0, +1.0]"
    assert (percent(None), points(None)) == ("-", "-")
    assert [count(number) for number in (940, 12_300, 1_234_567, 2_500_000_000)] == ["940", "12,300", "1.23 million", "2.5 billion"]
    assert [energy(value) for value in (0.583, 12.0, 450.0, 1234.0)] == ["0.58 Wh", "12 Wh", "450 Wh", "1.23 kWh"]
    assert [duration(seconds) for seconds in (3725, 200, 12.34, 0.045, 0)] == ["1 h 02 min", "3 min 20 s", "12.3 s", "45 ms", "0 s"]


def test_markdown_cannot_be_broken_out_of() -> None:
    assert fence("a\n```\nb").splitlines()[0] == "````text"
    assert code("a`b|c\nd") == "`` a`b\\|c d ``"
    assert cell("[x](y) <b> |") == "\\[x\\](y) \\<b\\> \\|"
