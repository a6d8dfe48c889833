"""`selftrain train` and `resume`: what is shown, what is written, how it stops."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path

import pytest
from rich.console import Console

from selftrain import control
from selftrain.cli.json_lines import JsonLines
from selftrain.cli.live import ASCII_BLOCKS, Live, course
from selftrain.cli.plain import Plain
from selftrain.cli.running import do
from selftrain.config_load import load_config
from selftrain.ledger import read
from selftrain.models import folder as embedded
from selftrain.report import read_record
from selftrain.report.comparison import rows
from selftrain.report.words import percent
from selftrain.run import read_config, resume, start
from selftrain.train import StepReport
from tests.cli.conftest import TOY, Selftrain, assert_refused

OPTIONS = {
    "policy.model": "toy",
    "labels.source": "majority",
    "update.learning_rate": 0.1,
    "rollout.prompts_per_step": 4,
    "rollout.num_votes": 6,
    "evals.num_problems": 12,
    "evals.num_samples": 4,
    "run.num_steps": 8,
    "run.checkpoint_every_steps": 2,
}


def test_plain_lines_from_start_to_end(command: Selftrain, tmp_path: Path) -> None:
    called = command("train", *TOY, "--run.num-steps", "7", "--log", "plain", "--probes.num-prompts", "8")
    assert (called.status, called.err) == (0, "")
    lines = called.out.splitlines()
    assert lines[0] == "toy trains on 256 prompts of toy:0+256: 7 steps of 4 prompts x 6 completions."
    assert lines[1].startswith(
        "What is rewarded is decided by the vote of a moving average of the model's weights. Label-free: no true answer reaches training"
    )
    assert lines[3] == "Run folder: runs/train-0001"
    steps = [line for line in lines if "  vote share " in line]
    assert [line.split()[:3] for line in steps] == [[f"{i + 1}/7", "step", str(i)] for i in range(7)]
    for word in ("vote share 0.", "reward ", "entropy ", " nats", "length 2.0 tokens", "admitted ", "guard ok", "left "):
        assert word in steps[0]
    assert all(re.search(r" admitted \d+ % ", line) for line in steps)
    assert any(line.startswith("avg@4: before ") and " points [" in line for line in lines)
    assert "Handed over: checkpoint step-000007, the newest one. The guard saw no evidence of harm." in lines
    head = read(tmp_path / "runs" / "train-0001").head
    assert f"ledger head: {head}" in lines
    commands = [line.split("  #")[0].strip() for line in lines[lines.index("Next:") + 1 :]]
    assert [command.split()[1] for command in commands] == ["evaluate", "verify"]
    assert (tmp_path / "runs" / "train-0001" / "report.html").stat().st_size > 5000
    assert "# Report of train-0001" in (tmp_path / "runs" / "train-0001" / "report.md").read_text("utf-8")


def test_the_next_commands_work_as_printed(command: Selftrain) -> None:
    printed = command("train", *TOY, "--run.num-steps", "7", "--probes.num-prompts", "8", "--log", "plain").out.split("Next:\n")[1].splitlines()
    evaluate, verify = (line.split("  #")[0].split()[1:] for line in printed)
    assert command(*evaluate).status == 0
    assert command(*verify).status == 0


def test_json_lines_are_objects_with_the_numbers_of_the_ledger(command: Selftrain, tmp_path: Path) -> None:
    called = command("train", *TOY, "--run.num-steps", "3", "--log", "json", "--run.name", "j", "--probes.num-prompts", "8")
    events = [json.loads(line) for line in called.out.splitlines()]
    assert [event["event"] for event in events] == ["start", "evaluation", "step", "step", "step", "evaluation", "end"]
    ledger = read(tmp_path / "runs" / "j")
    assert [event["metrics"] for event in events if event["event"] == "step"] == [dict(step.metrics.values) for step in ledger.steps()]
    assert events[-1]["head"] == ledger.head
    assert events[-1]["reason"] == "done"
    before = events[1]["measures"]["avg@4"]
    assert before["low"] <= before["value"] <= before["high"]
    assert events[-1]["outcome"][0]["before"] == before


def test_options_win_over_files_and_files_from_left_to_right(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text('[policy]\nmodel = "toy"\n[run]\nnum_steps = 9\nseed = 4\n[evals]\nnum_problems = 5\nnum_samples = 2\n')
    (tmp_path / "b.toml").write_text("[run]\nnum_steps = 2\nseed = 5\n")
    called = command("train", "a.toml", "b.toml", "--run.seed", "6", "--update.learning_rate", "0.25", "--log", "json")
    config = json.loads(called.out.splitlines()[0])["header"]["config"]
    assert (config["run"]["num_steps"], config["run"]["seed"], config["update"]["learning_rate"], config["evals"]["num_problems"]) == (2, 6, 0.25, 5)


def test_values_of_every_kind_arrive(command: Selftrain) -> None:
    words = (
        "--rollout.stop",
        "a b",
        "--rollout.stop",
        "c",
        "--policy.chat-template-args",
        '{"enable_thinking": false}',
        "--policy.gradient-checkpointing",
        "yes",
    )
    called = command("train", *TOY, "--run.num-steps", "1", "--log", "json", *words)
    config = json.loads(called.out.splitlines()[0])["header"]["config"]
    assert config["rollout"]["stop"] == ["a b", "c"]
    assert config["policy"]["chat_template_args"] == {"enable_thinking": False}
    assert config["policy"]["gradient_checkpointing"] is True


def test_the_live_display_fits_80_columns_and_says_all(tmp_path: Path) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=80, record=True, legacy_windows=False)
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "probes.num_prompts": 8}))
    assert do(run, Live(console), resumed=False).status == 0
    text = console.export_text()
    for word in ("vote share", "reward", "entropy", "length", "admitted", "guard", "evaluated before", "avg@4", "pseudo-label", "Next:", "selftrain evaluate"):
        assert word in text
    table = text[text.rindex("measure") :].splitlines()[:5]
    assert all(len(line) <= 80 for line in table)
    assert "…" not in "".join(table)


@pytest.mark.parametrize("width", [30, 60, 70])
def test_a_narrow_terminal_loses_no_name_and_no_number(tmp_path: Path, width: int) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=width, record=True, legacy_windows=False)
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.num_steps": 2}))
    assert do(run, Live(console), resumed=False).status == 0
    outcome = console.export_text().partition("Finished, 2 steps.")[0].rpartition("guard  ")[2]
    said = " ".join(outcome.split())
    record = read_record(run.folder)
    for row in rows(record.evaluation("before"), record.evaluation("after")):  # type: ignore[arg-type]
        assert row.name.split()[0] in said
        for number in (row.before, row.after):
            assert percent(number).replace(" %", "") in said.replace(" %", "")
    assert "pseudo-label" in said
    assert "…" not in outcome


def test_a_terminal_without_block_characters_shows_ascii(tmp_path: Path) -> None:
    written = TextIOWrapper(BytesIO(), "ascii", "backslashreplace")
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.num_steps": 3}))
    assert do(run, Live(Console(file=written, force_terminal=True, width=80, legacy_windows=False)), resumed=False).status == 0
    written.flush()
    text = written.buffer.getvalue().decode("ascii")  # type: ignore[attr-defined]
    assert "\\u2" not in text
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)
    assert re.search(r"vote share .*  [_.:\-=+*#]*#[_.:\-=+*#]* *$", shown, re.MULTILINE)


def test_the_course_of_a_signal_is_drawn_from_low_to_high() -> None:
    assert course([0.0, 0.5, 1.0]) == "▁▅█"
    assert course([2.0, 2.0]) == "▁▁"
    assert course([]) == ""
    assert len(course([float(i) for i in range(1000)], width=32)) <= 32
    assert course([0.0, 0.5, 1.0], blocks=ASCII_BLOCKS) == "_=#"


class Stopper(Plain):
    """Sends itself signals after given steps."""

    def __init__(self, signals: dict[int, list[signal.Signals]]) -> None:
        super().__init__()
        self.signals = signals

    def step(self, report: StepReport) -> None:
        super().step(report)
        for number in self.signals.get(report.metrics.step, []):
            signal.raise_signal(number)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_after_the_step_and_a_resumed_run_has_the_same_record(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], number: signal.Signals, status: int
) -> None:
    whole = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.name": "whole"}))
    assert do(whole, Plain(), resumed=False).status == 0
    cut = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.name": "cut"}))
    capsys.readouterr()
    assert do(cut, Stopper({2: [number]}), resumed=False).status == status
    told = capsys.readouterr().out
    assert "Stopping after the step in flight" in told
    assert f"Go on with: selftrain resume {cut.folder}" in told
    assert read(cut.folder).finished is False
    assert len(list(read(cut.folder).steps())) in (3, 4)
    assert do(resume(cut.folder), Plain(), resumed=True).status == 0
    assert "Resumed from step" in capsys.readouterr().out
    assert read(cut.folder).head == read(whole.folder).head
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_signal_after_the_last_step_is_told_though_the_run_has_its_end(tmp_path: Path) -> None:
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.name": "late"}))
    ended = do(run, Stopper({run.config.run.num_steps - 1: [signal.SIGTERM]}), resumed=False)
    assert ended == (True, 143)
    assert ended.status == 0


def test_a_second_signal_stops_at_once_and_says_what_resume_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path / "my runs"), "run.name": "cut"}))
    with pytest.raises(KeyboardInterrupt):
        do(run, Stopper({4: [signal.SIGINT, signal.SIGINT]}), resumed=False)
    assert f"Stopped at once. Go on with: selftrain resume '{run.folder}'; it repeats the steps since the last checkpoint." in capsys.readouterr().out
    run.ledger.close()
    assert do(resume(run.folder), Plain(), resumed=True).status == 0
    assert read(run.folder).finished


def test_ctrl_c_in_a_real_process(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "selftrain", "train", *TOY, "--run.num-steps", "400", "--log", "plain"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("3/400 "):
                process.send_signal(signal.SIGINT)
                break
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Go on with: selftrain resume runs/train-0001" in out
    assert err == ""
    assert not read(tmp_path / "runs" / "train-0001").finished


def test_the_command_that_goes_on_can_be_pasted(command: Selftrain, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path / "my runs"), "run.name": "cut"}))
    assert do(run, Stopper({2: [signal.SIGINT]}), resumed=False).status == 130
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Go on with: "))
    assert shlex.split(line.removeprefix("Go on with: ")) == ["selftrain", "resume", str(run.folder)]
    told = command("train", *TOY, "--run.folder", "my runs", "--run.name", "cut")
    assert_refused(told, 2, "Go on with it by `selftrain resume 'my runs/cut'`")


def test_a_damaged_checkpoint_is_refused_by_name(command: Selftrain, tmp_path: Path) -> None:
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.name": "hurt"}))
    do(run, Stopper({4: [signal.SIGINT]}), resumed=False)
    newest = sorted((run.folder / "checkpoints").glob("step-*"))[-1]
    (newest / "toy.json").write_text("{}")
    called = command("resume", run.folder, "--log", "plain")
    assert called.status == 0, called.err
    assert f"Checkpoint {newest.name} was refused: toy.json" in called.out


def test_resume_refuses_what_is_over_changed_or_missing(command: Selftrain, run_copy: Path, tmp_path: Path) -> None:
    assert_refused(command("resume", run_copy), 2, "it has ended", "selftrain report")
    assert_refused(command("resume", "nowhere"), 2, "nowhere")
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.name": "changed"}))
    do(run, Stopper({2: [signal.SIGINT]}), resumed=False)
    header = json.loads((run.folder / "run.json").read_text())
    header["header"]["config"]["update"]["learning_rate"] = 0.2
    (run.folder / "run.json").write_text(json.dumps(header))
    called = command("resume", run.folder)
    assert called.status in (1, 2)
    assert "run.json" in called.err
    assert "Traceback" not in called.err


def test_resume_refuses_other_prompts(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path), "run.name": "other"}))
    do(run, Stopper({2: [signal.SIGINT]}), resumed=False)
    monkeypatch.setattr("selftrain.compose.TOY_PROMPTS", 100)
    called = command("resume", run.folder)
    assert_refused(called, 2, "the training prompts", "they are not those the run was started with", "Restore them, or start a new run.")


def test_a_runs_relative_paths_mean_the_files_it_began_with(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where files of the same names lie in the folder from which it is taken up, evaluated or replayed."""
    first, other = tmp_path / "first", tmp_path / "other"
    for folder, answer in ((first, 1), (other, 99)):
        folder.mkdir()
        for name, numbers in (("q.jsonl", range(8)), ("e.jsonl", range(8, 12)), ("v.jsonl", range(12, 16))):
            rows = [{"prompt": f"{number}+1=", "answer": str(number + answer)} for number in numbers]
            (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = Path(str(embedded("default")))
    shutil.copytree(model, first / "model")
    (other / "model").mkdir()
    options = {"policy.model": "model", "prompts.file": "q.jsonl", "evals.file": "e.jsonl", "validation.file": "v.jsonl", "labels.source": "reference"}
    options |= {"prompts.template": "raw", "rollout.prompts_per_step": 2, "rollout.num_votes": 2, "rollout.max_new_tokens": 4, "probes.num_prompts": 0}
    options |= {"evals.num_samples": 2, "validation.num_samples": 2, "run.num_steps": 6, "run.checkpoint_every_steps": 1}
    monkeypatch.chdir(first)
    run = start(load_config((), options))
    do(run, Stopper({1: [signal.SIGINT]}), resumed=False)
    monkeypatch.chdir(tmp_path)
    folder = first / "runs" / "train-0001"
    (first / "q.jsonl").rename(first / "away.jsonl")
    assert f"{first}/q.jsonl: there is no such file" in command("resume", folder).err
    (first / "away.jsonl").rename(first / "q.jsonl")
    monkeypatch.chdir(other)
    resumed = command("resume", folder, "--log", "plain")
    assert resumed.status == 0, resumed.err
    evaluations = read(folder).evals()
    assert {one["evaluation"]["origin"] for one in evaluations} == {"e.jsonl", "v.jsonl"}
    reference = {example["reference"] for one in evaluations for example in one["evaluation"]["examples"]}
    assert reference <= {str(number + 1) for number in range(8, 16)}
    evaluated = command("evaluate", folder, "--log", "json")
    assert evaluated.status == 0, evaluated.err
    last = next(one["evaluation"] for one in reversed(evaluations) if one["name"] in ("after", "before"))
    right = [result["num_right"] / 2 for result in last["results"]]
    assert json.loads(evaluated.out)["models"][0]["measures"]["avg@2"]["value"] == pytest.approx(sum(right) / len(right))
    replayed = command("verify", folder, "--replay")
    assert replayed.status == 0, replayed.out


@pytest.mark.parametrize("room", [30_000, 32_000])
def test_a_full_disk_ends_with_an_error_and_loses_nothing(tmp_path: Path, room: int) -> None:
    """What is told of a step is told when all of it is written: of the one whose checkpoint found no room, nothing."""
    code = f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}));from selftrain.cli import call; sys.exit(call(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "train", *TOY, "--run.num-steps", "300", "--probes.num-prompts", "16", "--log", "plain"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    ledger, every = read(tmp_path / "runs" / "train-0001"), read_config(tmp_path / "runs" / "train-0001").run.checkpoint_every_steps
    steps = len(list(ledger.steps()))
    lacks_its_checkpoint = ledger.entries[-1].kind == "step" and steps % every == 0
    assert steps - lacks_its_checkpoint == done.stdout.count("  vote share ") > 0


def test_display_without_held_out_problems_claims_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run = start(load_config((), {**OPTIONS, "run.folder": str(tmp_path)}))
    run.problems = type(run.problems)(run.problems.train, None)
    assert do(run, JsonLines(), resumed=False).status == 0
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["outcome"] == []
    assert end["words"][-1] == "Without true answers this is no evidence of harm, and no evidence of gain either."


@pytest.mark.parametrize("kind", ["plain", "json", "rich"])
def test_a_request_that_cannot_be_shown_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """One that is in a record already, from before such texts were refused."""
    monkeypatch.setattr(control, "fault_of", lambda values: "")
    run = start(load_config(overrides={**OPTIONS, "run.folder": str(tmp_path), "run.name": "a"}))
    control.ask(run.folder, control.ROLL_BACK, "Ada \x1b[2J", "cut emoji \ud83d\u202e\nand a line", "start")
    out = StringIO()
    display = {"plain": Plain, "json": JsonLines, "rich": lambda: Live(Console(file=out, width=150))}[kind]()
    assert do(run, display, resumed=False).status == 0
    text = out.getvalue() if kind == "rich" else capsys.readouterr().out
    text.encode("utf-8")
    if kind != "json":
        assert "Request 1 by Ada \\x1b[2J, after 0 steps: roll back to start: cut emoji \\ud83d\\u202e and a line." in text
        assert "Handed over" in text


def test_an_output_without_arrows_shows_them_escaped(tmp_path: Path) -> None:
    run = start(load_config(overrides={**OPTIONS, "run.folder": str(tmp_path), "run.name": "a"}))
    control.ask(run.folder, control.STOP, "Ada", "fine → ok")
    run.ledger.close()
    words = [sys.executable, "-m", "selftrain", "resume", str(run.folder), "--log", "plain"]
    done = subprocess.run(words, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"}, check=False)
    assert done.returncode == 130, done.stderr
    assert rb"fine \u2192 ok" in done.stdout


def test_a_display_that_fails_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Failing(JsonLines):
        def step(self, report: StepReport) -> None:
            raise KeyError(report.head)

    run = start(load_config(overrides={**OPTIONS, "run.folder": str(tmp_path), "run.name": "a"}))
    assert do(run, Failing(), resumed=False).status == 0
    said = capsys.readouterr()
    assert json.loads(said.out.splitlines()[-1])["reason"] == "done"
    assert said.err.count("note: something could not be shown (KeyError") == run.config.run.num_steps


@pytest.mark.parametrize("kind", ["plain", "json", "rich"])
def test_requests_are_told_in_every_display(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    """A rollback to the start that waits when the run begins, a refused one, and the bar that goes back with the steps."""
    options = {**OPTIONS, "run.folder": str(tmp_path), "run.name": "a"}
    run = start(load_config(overrides=options))
    control.ask(run.folder, control.ROLL_BACK, "Ada", "once more [b]bold[/]", "start")
    control.ask(run.folder, control.RESUME, "Ada")
    out = StringIO()
    display = {"plain": Plain, "json": JsonLines, "rich": lambda: Live(Console(file=out, width=100, force_terminal=True, no_color=True))}[kind]()
    assert do(run, display, resumed=False).status == 0
    text = out.getvalue() if kind == "rich" else capsys.readouterr().out
    if kind == "json":
        asked = [line for line in map(json.loads, text.splitlines()) if line["event"] == "request"]
        assert [(line["action"], line["who"], line["refused"]) for line in asked] == [("roll_back", "Ada", ""), ("resume", "Ada", "the run is not paused")]
        return
    assert "Request 1 by Ada, after 0 steps: roll back to start: once more [b]bold[/]." in text
    assert "Request 2 by Ada, after 0 steps: resume. Not done: the run is not paused." in text.replace("\n", " ")
    assert "Rolled back once: after 0 steps to the start, by Ada" in text
