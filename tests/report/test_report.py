"""Reports of real runs: finished, halted, under way, empty; with completions that try to be markup."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from selftrain.cli.options import overrides
from selftrain.cli.train_command import command as train_command
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.evals import Interval
from selftrain.handover import START
from selftrain.ledger import read
from selftrain.policies import toy
from selftrain.report import read_record, write_report
from selftrain.report.contested import contested, outcomes, spread
from selftrain.report.render import cell, code, fence
from selftrain.report.repeat import command_line
from selftrain.report.words import duration, percent, points
from selftrain.run import Outcome, start, train_to_end
from selftrain.train import StepReport

SMALL = {"rollout.prompts_per_step": 6, "rollout.num_votes": 8, "evals.num_problems": 24, "evals.num_samples": 4}
LEARNS = {"policy.model": "toy", "update.learning_rate": 0.1, "run.num_steps": 12, "run.checkpoint_every_steps": 4, "evals.every_steps": 4, **SMALL}
COLLAPSES = {"policy.model": "toy:weak", "update.learning_rate": 1.5, "run.num_steps": 60, "run.checkpoint_every_steps": 2, "evals.num_problems": 24}
HOSTILE = "</pre><script>alert(1)</script> ````\n``` & \x00\x1b[31m |cell| \ud800 #### "


class Page(HTMLParser):
    """Collects tags, texts and everything that would be fetched; knows whether tags close in order."""

    VOID = ("meta", "rect", "line", "circle", "polyline", "br")

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
        if tag not in ("rect", "circle"):
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


def test_a_finished_run(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, LEARNS))
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
    assert page.tags.count("figure") == 7
    assert page.text.count("Accuracy on held-out problems") == 1
    assert "better" not in page.text
    assert "better" not in markdown


def test_accuracy_is_drawn_at_the_steps_where_it_was_evaluated(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, LEARNS))
    _, markdown = reported(outcome.folder)
    row = next(line for line in markdown.splitlines() if line.startswith("| Accuracy on held-out problems, avg@4"))
    assert [part.split(")")[0] for part in row.split("(step ")[1:]] == ["0", "4", "8", "12"]


def test_a_halted_run_says_why_and_what_is_handed_over(tmp_path: Path) -> None:
    outcome = train_to_end(config(tmp_path, COLLAPSES))
    assert outcome.reason == "halted"
    record = read_record(outcome.folder)
    assert record.handed_over == outcome.handed_over
    assert record.handed_over_path == outcome.path
    page, markdown = reported(outcome.folder)
    halted = record.verdicts[-1]
    for text in (page.text, markdown):
        assert f"halted by the guard after {outcome.steps} of 60 steps" in text
        assert f"The guard halted the run at step {halted.step}, before that step's update." in text
        assert "different prompts get the same answer" in text
        assert "constant_answer" in text
        assert "Handed over: " in text
    assert "halt" in page.tags or 'class="card verdict halt"' in (outcome.folder / "report.html").read_text("utf-8")
    assert 'class="span halt"' in (outcome.folder / "report.html").read_text("utf-8")


def test_a_checkpoint_that_was_recorded_and_not_saved_is_not_handed_over(tmp_path: Path) -> None:
    run = start(config(tmp_path, {**LEARNS, "run.checkpoint_every_steps": 2}))
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
    assert "Handed over: the model as it was at the start (toy:weak)" in reported(outcome.folder)[1]


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
    context = train_command.make_context("train", words[2:])
    options = {name: value for name, value in context.params.items() if name not in ("files", "log")}
    assert load_config((), overrides(options)) == made


def test_contested_groups_are_the_closest_calls_of_the_last_steps(tmp_path: Path) -> None:
    ledger = read(train_to_end(config(tmp_path, LEARNS)).folder)
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


def test_label_outcomes_are_shares_of_groups(tmp_path: Path) -> None:
    ledger = read(train_to_end(config(tmp_path, LEARNS)).folder)
    found = outcomes(ledger)
    assert (found.num_groups, found.num_steps, found.num_all) == (72, 12, 12)
    for shares in (found.labels, found.admissions, found.rewards):
        assert sum(value for _, value in shares) == pytest.approx(1)
    groups = [group for step in range(12) for group in ledger.groups(step)]
    assert dict(found.labels)["decided"] == sum(group.label.is_decided for group in groups) / 72


def test_long_runs_are_read_in_part() -> None:
    assert spread(list(range(1000)), 5) == [0, 250, 500, 749, 999]
    assert spread([3, 4], 5) == [3, 4]


def test_numbers_in_words() -> None:
    assert percent(Interval(0.512, 0.47, 0.553)) == "51.2 % [47.0, 55.3]"
    assert points(Interval(-0.02, -0.05, 0.01)) == "-2.0 points [-5.0, +1.0]"
    assert (percent(None), points(None)) == ("-", "-")
    assert [duration(seconds) for seconds in (3725, 200, 12.34, 0.045, 0)] == ["1 h 02 min", "3 min 20 s", "12.3 s", "45 ms", "0 s"]


def test_markdown_cannot_be_broken_out_of() -> None:
    assert fence("a\n```\nb").splitlines()[0] == "````text"
    assert code("a`b|c\nd") == "`` a`b\\|c d ``"
    assert cell("[x](y) <b> |") == "\\[x\\](y) \\<b\\> \\|"
