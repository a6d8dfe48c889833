"""Every mistake has its own error: what was given, why it cannot work, what to do; exit status 2, no traceback, nothing left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from selftrain.cli import call
from selftrain.cli.app import as_sentence
from tests.cli.conftest import TOY, Selftrain, assert_refused

GOOD_ROWS = [{"prompt": f"{i}+1", "answer": str(i + 1)} for i in range(20)]


def jsonl(path: Path, rows: list[object]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train", "--update.lerning-rate", "1"], ["option --update.lerning-rate", "there is no such option", "nearest one is --update.learning-rate"]),
        (["train", "--lerning-rate=1"], ["--lerning-rate", "--update.learning-rate"]),
        (["trian"], ["command trian", "The nearest one is train"]),
        (["train", "--update.learning-rate"], ["--update.learning-rate", "it needs a value"]),
        (["train", "--update.learning-rate", "fast"], ["update.learning_rate = 'fast'", "valid number", "Peak learning rate"]),
        (["train", "--update.learning-rate", "-1"], ["update.learning_rate", "greater than 0"]),
        (
            ["train", "--rollout.num-votes", "1"],
            ["rollout.num_votes = '1'", "greater than or equal to 2", "\n  Give a whole number (allowed: at least 2). rollout.num"],
        ),
        (["train", "--rollout.stop", ""], ["rollout.stop = ''", "at least 1 character", "Give a list of texts, none of them empty"]),
        (
            ["train", "--rollout.temperature", "1e-39"],
            ["rollout.temperature = '1e-39'", "greater than or equal to 0.001", "Give a number (allowed: at least 0.001)"],
        ),
        (["train", "--prompts.file", "q.jsonl"], ["q.jsonl", "there is no such file"]),
        (["train", "--reward.rule", ":f", *TOY], ["reward.rule = :f", "it cannot be imported (ValueError"]),
        (["train", "--reward.rule", "math:fsum", *TOY], ["reward.rule = math:fsum", "the module math has no Python source"]),
        (["train", "--labels.source", "not_there:f", *TOY], ["labels.source = not_there:f", "No module named 'not_there'"]),
        (["verify", "nowhere", "--head", "zz"], ["--head zz", "64 hexadecimal digits", "Give the whole head"]),
        (["train", "--objective.name", "ppo"], ["objective.name = 'ppo'", "'reinforce' or 'clipped'", "Give one of these names (allowed: reinforce, clipped)"]),
        (["train", "--labels.source", "majorty"], ["labels.source = majorty", "Did you mean majority"]),
        (["train", "--policy.chat-template-args", "{x}"], ["policy.chat_template_args", "it is not JSON"]),
        (["train", "--rollout.group-size", "99", *TOY], ["rollout.group_size = 99", "more completions cannot be trained on than vote"]),
        (["train", "--policy.model", "toy:strong"], ["policy.model = toy:strong", "toy, toy:weak"]),
        (["train", "--policy.model", "some/model"], ["no source", "exactly one of prompts.file"]),
        (["train", "--prompts.file", "none.jsonl", "--policy.model", "embedded:default"], ["none.jsonl", "there is no such file"]),
        (["train", *TOY, "--run.name", "-x"], ["run.name = '-x'", "begins with a letter or digit", "Name of the run folder"]),
        (["train", *TOY, "--run.name", ".hid"], ["run.name = '.hid'", "begins with a letter or digit"]),
        (["train", *TOY, "--run.name", "a" * 300], ["it has 300 characters", "has room for 200"]),
        (["train", "missing.toml"], ["config file missing.toml", "there is no such file"]),
        (["train", "questions.jsonl"], ["questions.jsonl", "looks like a file of prompts", "--prompts.file questions.jsonl"]),
        (["train", "."], ["config file .", "it is a folder", "--policy.model ."]),
        (["compare", "--policy.model", "toy"], ["option --policy.model", "there is no such option", "nearest one is --models"]),
        (["train", "--log", "loud"], ["--log", "loud", "plain"]),
        (["resume"], ["RUN is missing", "Usage: selftrain resume RUN"]),
        (["resume", "nowhere"], ["nowhere"]),
        (["report", "nowhere"], ["nowhere"]),
        (["verify", "nowhere"], ["nowhere"]),
        (["export", "nowhere", "out"], ["nowhere"]),
        (["evaluate", "toy", "--evals.num-samples", "0"], ["evals.num_samples", "greater than or equal to 1"]),
        (["evaluate", "some/model"], ["prompts"]),
        (["completion", "tcsh"], ["tcsh", "bash"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) and value[0] in ("train", "resume") else None,
)
def test_mistakes_on_the_command_line(command: Selftrain, tmp_path: Path, words: list[str], expected: list[str]) -> None:
    assert_refused(command(*words), 2, *expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[run\n", ["config file bad.toml", "it is not TOML"]),
        ("[run]\nnum_step = 3\n", ["run.num_step", "there is no such option", "nearest one is run.num_steps"]),
        ("[runs]\nseed = 3\n", ["[runs]", "there is no such section"]),
        ("run = 3\n", ["run = 3", "a section is a table"]),
        ("[run]\nnum_steps = true\n", ["run.num_steps = True", "it is no yes-or-no option", "Give a whole number (allowed: at least 1)"]),
        ('[rollout]\nstop = "x"\n', ["rollout.stop = 'x'", "valid list", "Give a list of texts"]),
        ("[rollout]\nnum_votes = 1\n", ["rollout.num_votes = 1", "greater than or equal to 2"]),
    ],
)
def test_mistakes_in_a_config_file(command: Selftrain, tmp_path: Path, text: str, expected: list[str]) -> None:
    (tmp_path / "bad.toml").write_text(text)
    assert_refused(command("train", "bad.toml"), 2, *expected)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([*GOOD_ROWS[:2], "{not json"], ["line 3 of", "it is not JSON"]),
        ([*GOOD_ROWS[:1], {"question": "1+1"}], ["line 2", "prompt"]),
        ([*GOOD_ROWS[:1], {"prompt": ""}], ["line 2"]),
        ([], ["p.jsonl"]),
        ([*GOOD_ROWS, GOOD_ROWS[0]], ["line 21", "1"]),
        (GOOD_ROWS[:3], ["3 prompts", "rollout.prompts_per_step = 16"]),
        ([{"prompt": [{"role": "clown", "content": "x"}]}], ["clown"]),
    ],
    ids=["not JSON", "no prompt", "empty prompt", "empty file", "duplicate", "too few", "unknown role"],
)
def test_mistakes_in_a_prompt_file(command: Selftrain, tmp_path: Path, rows: list[object], expected: list[str]) -> None:
    jsonl(tmp_path / "p.jsonl", rows)
    assert_refused(command("train", "--policy.model", "embedded:default", "--prompts.file", "p.jsonl"), 2, *expected)
    assert not (tmp_path / "runs").exists()


def test_held_out_problems_that_are_trained_on(command: Selftrain, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "p.jsonl", list(GOOD_ROWS))
    held_out = jsonl(tmp_path / "h.jsonl", [{"prompt": "3+1", "answer": "4"}])
    called = command("train", "--policy.model", "embedded:default", "--prompts.file", file, "--evals.file", held_out)
    assert_refused(called, 2, "held-out problems of", "1 of 1 are training prompts", "Remove them")


def test_reference_labels_without_answers(command: Selftrain, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "p.jsonl", [{"prompt": row["prompt"]} for row in GOOD_ROWS])
    called = command("train", "--policy.model", "embedded:default", "--prompts.file", file, "--labels.source", "reference")
    assert_refused(called, 2, "labels.source = reference", "no prompt has a true answer", "--prompts.answer-field")


def test_a_run_folder_that_exists(command: Selftrain, run_copy: Path) -> None:
    called = command("train", *TOY, "--run.name", "made")
    assert_refused(called, 2, "run folder runs/made", "it exists already", "selftrain resume runs/made")


def test_models_that_cannot_serve(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text("{}")
    for model, words in (
        ("./empty", ["./empty", "config.json"]),
        ("./bare", ["weights"]),
        ("./gone", ["there is no such model folder"]),
        ("embedded:big", ["default, weak"]),
    ):
        assert_refused(command("train", "--policy.model", model, "--prompts.task", "add:4"), 2, *words)
    assert not (tmp_path / "runs").exists()


def test_a_prompt_over_the_limit(command: Selftrain, tmp_path: Path) -> None:
    file = jsonl(tmp_path / "p.jsonl", [*GOOD_ROWS, {"prompt": "1+" * 100 + "1"}])
    called = command("train", "--policy.model", "embedded:default", "--prompts.file", file, "--prompts.template", "raw", "--prompts.max-prompt-tokens", "64")
    assert_refused(called, 2, "error: 1 prompt: ", "prompts.max_prompt_tokens", "64")
    file = jsonl(tmp_path / "q.jsonl", [*GOOD_ROWS, {"prompt": "1+" * 4000 + "1"}])  # raising the limit would not help
    called = command("train", "--policy.model", "embedded:default", "--prompts.file", file, "--prompts.template", "raw", "--prompts.max-prompt-tokens", "64")
    assert_refused(called, 2, "the context of embedded:default has no room", "with a longer context")
    assert not (tmp_path / "runs").exists()


def test_a_run_folder_that_cannot_be_made(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    called = command("train", *TOY, "--run.folder", "file")
    assert_refused(called, 2, "folder file/train-0001", "file is a file, not a folder", "Choose another folder")


def test_a_run_folder_where_none_can_be_made_speaks_of_no_run(command: Selftrain) -> None:
    called = command("train", *TOY, "--run.folder", "/proc/x")
    assert_refused(called, 1, "run folder /proc/x/train-0001: it cannot be made", "Choose another --run.folder")
    assert "resume" not in called.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["--help"], ["completion", "bash"], ["train", *TOY, "--run.num-steps", "2", "--run.name", "a", "--log", "plain"]])
def test_an_output_that_is_full_is_no_bug(tmp_path: Path, words: list[str], unbuffered: str) -> None:
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([sys.executable, "-m", "selftrain", *words], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the output: it cannot be written (No space left on device)")
    assert "bug" not in done.stderr
    assert len(done.stderr.splitlines()) == 2
    if words[0] == "train":
        assert "go on with: selftrain resume runs/a" in done.stderr
        assert call(["resume", str(tmp_path / "runs" / "a"), "--log", "plain"]) == 0


def test_an_unexpected_error_is_one_line_and_a_traceback_only_on_request(command: Selftrain, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("the\nsky fell")

    monkeypatch.setattr("selftrain.config_load.load_config", broken)
    assert_refused(command("train"), 1, "RuntimeError: the sky fell", "--debug")
    told = command("train", "--debug")
    assert told.status == 1
    assert "Traceback" in told.err
    assert "in broken" in told.err


def test_ctrl_c_before_the_run_is_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("selftrain.config_load.load_config", interrupted)
    assert call(["train"]) == 130
    assert "stopped at once" in capsys.readouterr().err


def test_a_run_with_code_that_lies_elsewhere(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"mine_{abs(hash(tmp_path)):x}"
    home = tmp_path / "home"
    home.mkdir()
    (home / f"{name}.py").write_text("def rule(group, label, index): return 1.0\n")
    monkeypatch.chdir(home)
    monkeypatch.syspath_prepend(str(home))
    assert command("train", *TOY, "--reward.rule", f"{name}:rule", "--run.num-steps", "1", "--run.name", "r").status == 0
    monkeypatch.undo()
    sys.modules.pop(name)
    monkeypatch.chdir(tmp_path)
    for words in (["resume", "home/runs/r"], ["verify", "home/runs/r", "--replay"]):
        called = command(*words)
        assert called.status == 2
        assert f"reward.rule = {name}:rule: there is no module {name} here\n  Call selftrain where the run was started: cd {home}" in called.err


def test_a_run_is_proved_without_its_verifier_and_not_taken_up(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"judge_{abs(hash(tmp_path)):x}"
    (tmp_path / f"{name}.py").write_text("def check(submission): return submission.answer == '1'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ("--labels.source", "verifier", "--verifier.function", f"{name}:check", "--run.num-steps", "1", "--run.name", "r")
    assert command("train", *TOY, *words).status == 0
    sys.modules.pop(name)
    (tmp_path / f"{name}.py").unlink()
    assert command("verify", "runs/r", "--replay").status == 0
    assert_refused(command("resume", "runs/r"), 2, f"verifier.function = {name}:check: there is no module {name} here")


def test_advice_begins_with_a_capital_unless_it_begins_with_an_option() -> None:
    assert as_sentence("write a prompt") == "Write a prompt"
    assert as_sentence("rollout.num_votes [completions]: N") == "rollout.num_votes [completions]: N"
    assert as_sentence("--prompts.file FILE") == "--prompts.file FILE"


def test_what_cannot_be_written_is_told_with_advice_that_can_be_followed(command: Selftrain, run_copy: Path) -> None:
    """The run has ended, or there is none: resuming it would mend nothing."""
    (run_copy / "report.html").unlink()
    (run_copy / "report.html").mkdir()
    assert_refused(command("report", run_copy), 1, "report.html", f"then `selftrain report {run_copy}`; a copy of the folder can be reported")
    (run_copy / "report.html").rmdir()
    for words, advice in (
        (("report", run_copy, run_copy, "--output", "/proc/x"), "Name another folder with --output"),
        (("calibrate", *TOY, "--count", "4", "--folder", "/proc/x"), "Name another folder with --folder"),
        (("compare", *TOY[2:], "--models", "toy", "--sources", "majority", "--folder", "/proc/x"), "give the command again"),
        (("label", "--policy.model", "toy", "--prompts.count", "16", "--out", "/proc/x.jsonl"), "give the command again"),
    ):
        called = command(*words)
        assert called.status == 1
        assert "/proc/x" in called.err
        assert advice in called.err
        assert "resume" not in called.err


def test_a_warning_is_coloured_on_a_terminal_only(command: Selftrain, monkeypatch: pytest.MonkeyPatch) -> None:
    command("--version")
    assert warnings.formatwarning("the disk is slow", UserWarning, "", 0) == "warning: the disk is slow\n"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert warnings.formatwarning("the disk is slow", UserWarning, "", 0) == "\x1b[33m\x1b[1mwarning:\x1b[0m the disk is slow\n"
    assert warnings.formatwarning("of a \x1b[31mmodel\r", UserWarning, "", 0).endswith(" of a \\x1b[31mmodel\\r\n")
    for name, value in (("NO_COLOR", "1"), ("TERM", "dumb")):
        with monkeypatch.context() as one:
            one.setenv(name, value)
            assert warnings.formatwarning("the disk is slow", UserWarning, "", 0) == "warning: the disk is slow\n"
            assert "\x1b" not in command("verify", "nope").err
