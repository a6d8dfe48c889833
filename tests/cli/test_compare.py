"""`selftrain compare`: its runs, how it is taken up, what it refuses, and the table that it writes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest

from selftrain.cli import call
from selftrain.cli.plain import Plain
from selftrain.comparing.cells import same_start
from selftrain.comparing.measuring import base_of
from selftrain.comparing.plan import Cell
from selftrain.compose import load_policy
from selftrain.config_load import load_config
from selftrain.errors import ConfigError
from selftrain.evaluate_model import evaluate
from selftrain.events import Evaluated
from selftrain.ledger import read
from selftrain.ledger.objects import place
from selftrain.policies.toy import ToyPolicy
from selftrain.report import read_record
from tests.cli.conftest import Selftrain, assert_refused

CONFIG = """
[policy]
model = "toy"
[labels]
source = "majority"
[update]
learning_rate = 0.1
warmup_steps = 0
[rollout]
prompts_per_step = 4
num_votes = 6
[evals]
num_problems = 30
num_samples = 4
every_steps = 4
[probes]
num_prompts = 0
[run]
num_steps = 8
checkpoint_every_steps = 4
"""
TOY_OPTIONS = {"policy.model": "toy", "evals.num_problems": 30, "evals.num_samples": 4}
SOURCES = ("--sources", "majority", "reference")


@pytest.fixture(scope="session")
def made_comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with shared.toml and runs/c: majority and reference, seeds 0 and 1."""
    home = tmp_path_factory.mktemp("compared")
    (home / "shared.toml").write_text(CONFIG)
    before = Path.cwd()
    os.chdir(home)
    try:
        assert call(["compare", "shared.toml", *SOURCES, "--seeds", "0", "1", "--folder", "runs/c", "--log", "plain"]) == 0
    finally:
        os.chdir(before)
    return home


@pytest.fixture
def home(made_comparison: Path, tmp_path: Path) -> Path:
    """A copy of it in the folder in which commands are called."""
    shutil.copytree(made_comparison, tmp_path, dirs_exist_ok=True)
    return tmp_path


def heads(folder: Path) -> dict[str, str]:
    return {path.parent.name: read(path.parent).head for path in sorted(folder.glob("*/run.json"))}


def test_every_cell_is_an_ordinary_run_with_a_speaking_name(home: Path, command: Selftrain) -> None:
    names = ["toy-majority-seed-0", "toy-majority-seed-1", "toy-reference-seed-0", "toy-reference-seed-1"]
    assert list(heads(home / "runs" / "c")) == names
    assert command("verify", "runs/c/toy-majority-seed-1", "--replay").status == 0
    alone = command("train", "shared.toml", "--run.seed", "1", "--run.name", "alone", "--log", "json")
    assert alone.status == 0
    assert heads(home / "runs")["alone"] == heads(home / "runs" / "c")["toy-majority-seed-1"]


def test_the_start_is_evaluated_once_a_seed(home: Path) -> None:
    """And what the other sources take over is what their own evaluation would have been."""
    folder = home / "runs" / "c"
    for seed in (0, 1):
        first, taken = (read(folder / f"toy-{source}-seed-{seed}").evals()[0] for source in ("majority", "reference"))
        assert ("taken_from" in first, taken["taken_from"]) == (False, f"toy-majority-seed-{seed}")
        assert (taken["name"], taken["step"], taken["evaluation"]) == ("before", 0, first["evaluation"])
        config = load_config((), {**TOY_OPTIONS, "run.seed": seed})
        assert taken["evaluation"]["results"] == json.loads(json.dumps(evaluate(config).to_json()))["results"]


def test_an_evaluation_of_the_start_with_other_answers_is_not_taken_over(home: Path) -> None:
    ours, other = home / "runs" / "c" / "toy-reference-seed-0", home / "runs" / "c" / "toy-majority-seed-0"
    cell, record = Cell("toy-majority-seed-0", "majority", "toy", 0), read_record(other)
    assert same_start(read(ours), other) is not None
    assert base_of(home / "runs" / "c", cell, record) is not None
    document = json.loads((other / "run.json").read_text())
    document["environment"]["held_out_answers_hash"] = "0" * 64
    (other / "run.json").write_text(json.dumps(document))
    assert same_start(read(ours), other) is None
    assert base_of(home / "runs" / "c", cell, read_record(other)) is None


def test_the_table_is_made_of_the_runs(home: Path) -> None:
    folder = home / "runs" / "c"
    rows = {row["run"]: row for row in csv.DictReader((folder / "comparison.csv").read_text().splitlines())}
    assert list(rows) == ["toy-majority-seed-0", "toy-majority-seed-1", "toy-reference-seed-0", "toy-reference-seed-1"]
    one = rows["toy-reference-seed-0"]
    evaluations = {record["name"]: record["evaluation"] for record in read(folder / "toy-reference-seed-0").evals()}
    for name, key in (("before", "avg_before"), ("after", "avg_end"), ("after", "avg_handed")):
        right = sum(result["num_right"] for result in evaluations[name]["results"])
        assert float(one[key]) == pytest.approx(right / (30 * 4))
    assert float(one["proxy_accuracy_first"]) == float(one["label_accuracy_last"]) == 1.0
    assert 0 < float(rows["toy-majority-seed-0"]["label_accuracy_first"]) < 1
    assert (one["label_free"], one["steps"], one["handed_over"], one["sampled_tokens"]) == ("False", "8", "step-000008", "384.0")
    (start,) = json.loads((folder / "comparison.json").read_text())["starts"]
    majority, reference = start["sources"]
    gains = [float(rows[f"toy-majority-seed-{seed}"]["avg_end"]) - float(rows[f"toy-majority-seed-{seed}"]["avg_before"]) for seed in (0, 1)]
    assert majority["gain"]["avg"]["end"]["value"] == pytest.approx(sum(gains) / 2)
    share = majority["share_of_reference_gain"]
    assert share["low"] < share["value"] == pytest.approx(majority["gain"]["avg"]["end"]["value"] / reference["gain"]["avg"]["end"]["value"])
    assert reference["share_of_reference_gain"] is None
    assert [one["num_samples"] for one in start["base"]["greedy"]] == [1, 1]
    assert [one["step"] for one in majority["runs"][0]["curve"]] == [0, 4, 8]
    best = max(point["avg"] for point in majority["runs"][0]["curve"])
    assert float(rows["toy-majority-seed-0"]["avg_best"]) == pytest.approx(best)


def test_the_pages_say_who_decides_and_what_was_seen_with_labels(home: Path) -> None:
    text = (home / "runs" / "c" / "comparison.md").read_text("utf-8")
    for words in (
        "## From toy",
        "The start: greedy ",
        "best (seen with labels)",
        "share of the reference's gain",
        "| majority | yes | 2 |",
        "| reference | no | 2 |",
    ):
        assert words in text
    page = (home / "runs" / "c" / "comparison.html").read_text("utf-8")
    assert page.count("<svg") == 8
    for title in ("Held-out avg@4", "Held-out maj@4", "Proxy accuracy", "Pseudo-label accuracy", "Vote share", "Reward", "Groups that train"):
        assert f"<figcaption>{title} <span>" in page
    assert not [word for word in ("<script", "http://", "https://", "src=") if word in page]


def test_the_same_command_keeps_what_is_finished_and_seeds_may_be_added(home: Path, command: Selftrain) -> None:
    before = heads(home / "runs" / "c")
    called = command("compare", "shared.toml", *SOURCES, "--seeds", "0", "2", "--folder", "runs/c", "--log", "plain")
    assert called.status == 0, called.err
    assert "run 1 of 4: toy-majority-seed-0: finished before, kept" in called.out
    after = heads(home / "runs" / "c")
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"toy-majority-seed-2", "toy-reference-seed-2"}
    assert "| majority | yes | 3 |" in (home / "runs" / "c" / "comparison.md").read_text("utf-8")


def test_only_report_makes_the_same_pages_of_the_folders_alone(home: Path, command: Selftrain) -> None:
    folder = home / "runs" / "c"
    names = ("comparison.md", "comparison.html", "comparison.csv", "comparison.json")
    before = [(folder / name).read_bytes() for name in names]
    for name in names:
        (folder / name).unlink()
    (home / "shared.toml").unlink()
    called = command("compare", "--only-report", "runs/c", "--log", "plain")
    assert called.status == 0, called.err
    assert [(folder / name).read_bytes() for name in names] == before
    shutil.rmtree(folder / "measured")
    assert command("compare", "--only-report", "runs/c", "--log", "json").status == 0
    assert [(folder / name).read_bytes() for name in names] == before


def test_checkpoints_may_go_when_a_comparison_is_done(home: Path, command: Selftrain) -> None:
    folder = home / "runs" / "c"
    before = (folder / "comparison.csv").read_bytes()
    for checkpoints in folder.glob("*/checkpoints"):
        shutil.rmtree(checkpoints)
    assert command("compare", "--only-report", "runs/c").status == 0
    assert (folder / "comparison.csv").read_bytes() == before


COLLAPSES = ("--sources", "format_only", "--seeds", "0", "--guard.baseline-steps", "1", "--guard.window-steps", "2", "--update.learning-rate", "1")
COLLAPSES += ("--run.num-steps", "20", "--run.checkpoint-every-steps", "2")


def test_the_end_of_a_halted_run_is_its_newest_checkpoint_and_says_which(home: Path, command: Selftrain) -> None:
    """The guard halts it in its third step, before that step's update, and checkpoints are made every second step."""
    called = command("compare", "shared.toml", *COLLAPSES, "--folder", "runs/h", "--guard.action", "halt")
    assert called.status == 0, called.err
    row = next(csv.DictReader((home / "runs" / "h" / "comparison.csv").read_text().splitlines()))
    assert [one.step for one in read(home / "runs" / "h" / "toy-format_only-seed-0").checkpoints()] == [2]
    assert (row["end_reason"], row["steps"]) == ("halted", "3")
    assert "(step 2) |" in (home / "runs" / "h" / "comparison.md").read_text("utf-8")


def test_runs_that_went_back_are_counted(home: Path, command: Selftrain) -> None:
    called = command("compare", "shared.toml", *COLLAPSES, "--folder", "runs/b")
    assert called.status == 0, called.err
    branches = read(home / "runs" / "b" / "toy-format_only-seed-0").branches
    assert [(one.who, one.step) for one in branches[:1]] == [("guard", 0)]
    text = (home / "runs" / "b" / "comparison.md").read_text("utf-8")
    assert "| 1 of 1 | 1 of 1 |" in text
    assert f"Rolled back {'once' if len(branches) == 1 else f'{len(branches)} times'}: after {branches[0].left_at} steps to the start, by guard" in text
    row = next(csv.DictReader((home / "runs" / "b" / "comparison.csv").read_text().splitlines()))
    assert row["num_rollbacks"] == str(len(branches))


def test_ctrl_c_and_the_same_command_give_the_runs_of_an_uninterrupted_comparison(home: Path, command: Selftrain) -> None:
    words = ["compare", "shared.toml", *SOURCES, "--seeds", "0", "1", "--folder", "runs/cut", "--log", "plain"]
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    there = [sys.executable, "-m", "selftrain", *words]
    with subprocess.Popen(there, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        in_second = False
        for line in process.stdout:
            in_second = in_second or line.startswith("run 2 of 4")
            if in_second and line.startswith("3/8 "):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "")
    assert "The comparison goes on by the same command with --folder runs/cut; finished runs are kept." in out
    assert len(heads(home / "runs" / "cut")) == 2
    done = command(*words)
    assert done.status == 0, done.err
    assert "run 1 of 4: toy-majority-seed-0: finished before, kept" in done.out
    assert "Resumed from step" in done.out
    assert heads(home / "runs" / "cut") == heads(home / "runs" / "c")
    values = ["\n".join(",".join(line.split(",")[:-2]) for line in (home / "runs" / name / "comparison.csv").read_text().splitlines()) for name in ("c", "cut")]
    assert values[0] == values[1]  # all but seconds and head, which the line above compares


def test_a_signal_while_a_run_ends_begins_no_other(home: Path, command: Selftrain, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = Plain.evaluated

    def evaluated(self: Plain, event: Evaluated) -> None:
        shown(self, event)
        if event.name == "after":
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Plain, "evaluated", evaluated)
    done = command("compare", "shared.toml", *SOURCES, "--seeds", "0", "--folder", "runs/late", "--log", "plain")
    assert done.status == 130
    assert "run 1 of 2" in done.out
    assert "run 2 of 2" not in done.out
    assert read(home / "runs/late/toy-majority-seed-0").finished


@pytest.mark.parametrize("words", [("--sources", "--folder", "x"), ("--seeds",), ("--models", "--controls")])
def test_a_list_without_values_is_refused(home: Path, command: Selftrain, words: tuple[str, ...]) -> None:
    assert_refused(command("compare", "shared.toml", *words), 2, f"option {words[0]}", "it needs a value")


def test_a_run_with_another_config_is_refused_by_the_option(home: Path, command: Selftrain) -> None:
    before = heads(home / "runs" / "c")
    again = ("compare", "shared.toml", "--folder", "runs/c")
    called = command(*again, *SOURCES, "--seeds", "0", "1", "--update.learning-rate", "0.2")
    assert_refused(called, 2, "toy-majority-seed-0", "update.learning_rate = 0.1 there, 0.2 now", "choose another --folder")
    called = command(*again, "--sources", "frozen", "--run.num-steps", "9")
    assert_refused(called, 2, "comparison runs/c", "run.num_steps = 8 there, 9 now", "what is compared shares them")
    assert heads(home / "runs" / "c") == before


def test_a_variant_is_compared_with_its_source(home: Path, command: Selftrain) -> None:
    (home / "sure.toml").write_text("[labels]\nmin_share_frac = 0.5\n")
    words = ("compare", "shared.toml", "--sources", "majority", "sure=sure.toml", "--seeds", "0", "--folder", "runs/v", "--log", "json")
    called = command(*words)
    assert called.status == 0, called.err
    headers = {name: read(home / "runs" / "v" / f"toy-{name}-seed-0").header["config"]["labels"] for name in ("majority", "sure")}
    assert [(one["source"], one["min_share_frac"]) for one in headers.values()] == [("majority", 0.0), ("majority", 0.5)]
    assert json.loads(called.out.splitlines()[-1])["event"] == "comparison"
    assert all(json.loads(line)["event"] for line in called.out.splitlines())


def test_what_the_last_weights_are_worth_is_known_where_an_earlier_checkpoint_is_handed_over(home: Path, command: Selftrain) -> None:
    """The guard only warns, but sees harm, so the run hands over another checkpoint and has not evaluated its last one."""
    harm = ("--guard.baseline-steps", "1", "--guard.window-steps", "1", "--update.learning-rate", "1.2", "--run.num-steps", "14", "--guard.action", "warn")
    called = command("compare", "shared.toml", "--sources", "majority", "--seeds", "0", "--folder", "runs/h", "--log", "plain", *harm)
    assert called.status == 0, called.err
    handed = called.out.split("Handed over: ")[1].splitlines()[0]
    assert "step-000014" not in handed
    row = next(csv.DictReader((home / "runs" / "h" / "comparison.csv").read_text().splitlines()))
    assert "evaluating step-000014 of toy-majority-seed-0" in called.out
    assert float(row["avg_end"]) == pytest.approx(0.5)
    assert float(row["avg_handed"]) == pytest.approx(0.4167, abs=1e-4)
    assert row["handed_over"] in handed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), ("--sources", "nothing is named", "ema majority reference")),
        (("--sources", "majorty"), ("labels.source = majorty", "there is no such name", "Did you mean majority?")),
        (("--sources", "majority", "majority"), ("--sources majority", "it is given twice")),
        (("--sources", "majority", "--seeds", "1", "1"), ("--seeds 1", "it is given twice")),
        (("--sources", "majority", "majority=quiet.toml"), ("--sources", "two of them have one name")),
        (
            ("--sources", "majority", "weak-majority=quiet.toml", "--models", "toy", "toy:weak"),
            ("weak-majority from toy and majority from toy:weak would both be the run toy-weak-majority-seed-0",),
        ),
        (("--sources", "reference=quiet.toml"), ("taken for the label source reference, and its labels.source is majority", 'Write source = "reference"')),
        (("--sources", "majority", "quiet.toml"), ("--sources quiet.toml", "Put config files before --sources")),
        (("--sources", "fast=fast.toml"), ("[update] in fast.toml", "share prompts, budget, learning rate")),
        (("--sources", "lost=lost.toml"), ("config file lost.toml", "there is no such file")),
        (("--sources", "a b=quiet.toml"), ("its name names a run folder",)),
        (("--sources", "majority", "--models", "toy", "b/toy"), ("--models toy b/toy", "two of them would have runs of the same name")),
        (("--sources", "majority", "--models", "toy:strong"), ("toy:strong",)),
        (("--sources", "majority", "verifier", "--verifier.function", "nomod:f"), ("verifier.function = nomod:f", "it cannot be imported")),
        (("--sources", "majority", "reference", "--seeds", "3", "0", "--reference.frac", "0.003"), ("holds none of those", "256 prompts of toy:0+256")),
        (("--sources",), ("--sources", "it needs a value")),
        (("--sources", "majority", "--labels.source", "frozen"), ("option --labels.source", "there is no such option")),
        (("--only-report", "runs/none"), ("runs/none", "no compare.json")),
    ],
)
def test_mistakes_are_told_before_the_first_sample(command: Selftrain, tmp_path: Path, words: tuple[str, ...], told: tuple[str, ...]) -> None:
    (tmp_path / "shared.toml").write_text(CONFIG)
    (tmp_path / "quiet.toml").write_text("[labels]\nmin_share_frac = 0.4\n")
    (tmp_path / "fast.toml").write_text("[update]\nlearning_rate = 0.3\n")
    files = () if "--only-report" in words else ("shared.toml",)
    assert_refused(command("compare", *files, *words), 2, *told)
    assert not list(tmp_path.glob("runs/*"))


def test_a_verifier_is_started_before_the_first_run_and_not_asked_for_by_finished_ones(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "shared.toml").write_text(CONFIG)
    module = tmp_path / "checks_compared.py"
    module.write_text("import os\nif os.getpid() != int(os.environ['COMPARING']): import gone\ndef check(submission): return submission.answer == '1'\n")
    words = ("compare", "shared.toml", "--sources", "majority", "verifier", "--verifier.function", "checks_compared:check", "--folder", "runs/c")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMPARING", str(os.getpid()))
        assert_refused(command(*words, "--seeds", "0"), 2, "it cannot be imported in its process", "No module named 'gone'")
    assert not list(tmp_path.glob("runs/*"))
    module.write_text("def check(submission): return submission.answer == '1'\n")
    assert command(*words, "--seeds", "0", "--log", "plain").status == 0
    module.write_text("import gone\n")
    assert command(*words, "--seeds", "0", "--log", "plain").status == 0


def test_only_report_runs_nothing_and_takes_nothing_else(home: Path, command: Selftrain) -> None:
    assert_refused(command("compare", "--only-report", "runs/c", "--sources", "majority"), 2, "with other options", "Leave the others out.")
    (home / "runs" / "c" / "compare.json").write_text("{}")
    assert_refused(command("compare", "--only-report", "runs/c"), 2, "compare.json", "it cannot be read")


def test_one_policy_at_a_time_is_in_memory(home: Path, command: Selftrain, monkeypatch: pytest.MonkeyPatch) -> None:
    alive: weakref.WeakSet[ToyPolicy] = weakref.WeakSet()
    counts = []

    def loaded(*args: Any) -> ToyPolicy:
        counts.append(len(alive))
        policy = load_policy(*args)
        assert isinstance(policy, ToyPolicy)
        alive.add(policy)
        return policy

    for module in ("selftrain.run", "selftrain.comparing.measuring"):
        monkeypatch.setattr(f"{module}.load_policy", loaded)
    assert command("compare", "shared.toml", *SOURCES, "--seeds", "7", "--folder", "runs/m").status == 0
    assert counts == [0, 0, 0, 0]


def test_true_answers_are_a_control_only_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from selftrain.comparing.plan import CONTROLS, Choice, shared_config, with_controls

    monkeypatch.chdir(tmp_path)
    choice = Choice(sources=("majority",), controls=True)
    assert with_controls(shared_config((), {"policy.model": "toy"}, ()), choice) == ("majority", *CONTROLS, "reference")
    (tmp_path / "bare.jsonl").write_text('{"prompt": "1+1"}\n')
    bare = shared_config((), {"prompts.file": "bare.jsonl", "rollout.prompts_per_step": 1}, ())
    assert with_controls(bare, choice) == ("majority", *CONTROLS)
    assert with_controls(bare, Choice(sources=("majority",))) == ("majority",)
    assert with_controls(bare, Choice(controls=True)) == ("ema", *CONTROLS)


def test_a_config_is_paired_with_its_controls_by_one_flag(tmp_path: Path) -> None:
    from selftrain.comparing.plan import CONTROLS, Choice, make_plan

    plan = make_plan((), {"policy.model": "toy", "labels.source": "split_vote", "run.folder": str(tmp_path)}, Choice(seeds=(0,), controls=True))
    assert [(cell.source, config.labels.source) for cell, config in plan.cells.items()] == [(name, name) for name in ("split_vote", *CONTROLS, "reference")]
    with pytest.raises(ConfigError, match="nothing is named that could be compared"):
        make_plan((), {"policy.model": "toy", "run.folder": str(tmp_path)}, Choice(seeds=(0,)))


def test_a_second_turn_has_a_table_of_its_own(home: Path, command: Selftrain) -> None:
    """One source with a second turn, one without; the start is evaluated anew for it, since that evaluation depends on the second turn."""
    (home / "own.toml").write_text('[correction]\nmode = "own"\n')
    made = command("compare", "shared.toml", "--sources", "majority", "own=own.toml", "--seeds", "0", "1", "--folder", "runs/d", "--run.num-steps", "4")
    assert made.status == 0, made.err
    page = (home / "runs/d/comparison.md").read_text("utf-8")
    part = page.split("Second turn")[1].split("Labels and groups in training")[0]
    assert [line.split("|")[1].strip() for line in part.splitlines() if line.startswith("| ")] == ["who decides", "own"]
    sources = {one["source"]: one for one in json.loads((home / "runs/d/comparison.json").read_text("utf-8"))["starts"][0]["sources"]}
    assert sources["majority"]["second_turn"] is None
    found = sources["own"]["second_turn"]["end"]["avg"]
    runs = [read_record(place(str(home / "runs/d" / f"toy-own-seed-{seed}"))).evaluation("after") for seed in (0, 1)]
    gains = [one.second_turn.gain.value for one in runs if one is not None and one.second_turn is not None]
    assert found["over_sampling_again"]["value"] == pytest.approx(sum(gains) / 2)
    assert found["after"]["value"] == pytest.approx(sources["own"]["avg"]["end"]["value"] + sum(gains) / 2)
