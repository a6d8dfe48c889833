"""evaluate, verify, export, report, prompts: their output for real runs."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from selftrain.cli.evaluating import print_table
from selftrain.compose import Problems, toy_sets
from selftrain.config_load import load_config
from selftrain.errors import PromptError
from selftrain.evaluate_model import check_unseen, problems_of
from selftrain.ledger import objects, read
from selftrain.ledger.objects import ObjectPath, place
from selftrain.models import folder as embedded_folder
from selftrain.report import read_record
from selftrain.report.words import next_commands
from selftrain.run import read_config, start
from selftrain.types import AnswerSheet, PromptSet
from tests.cli.conftest import QUICK, TOY, Selftrain, assert_refused


def test_evaluate_repeats_the_runs_own_numbers(command: Selftrain, run_copy: Path) -> None:
    recorded = {one["name"]: one["evaluation"] for one in read(run_copy).evals()}
    called = command("evaluate", "toy", run_copy, "--log", "json")
    assert called.status == 0, called.err
    found = json.loads(called.out)
    for shown, name in zip(found["models"], ("before", "after"), strict=True):
        right = [result["num_right"] / 4 for result in recorded[name]["results"]]
        assert shown["measures"]["avg@4"]["value"] == pytest.approx(sum(right) / 12)
    assert [one["model"] for one in found["differences_to_first"]] == [str(run_copy)]
    after, before = (found["models"][i]["measures"]["avg@4"]["value"] for i in (1, 0))
    assert found["differences_to_first"][0]["measures"]["avg@4"]["value"] == pytest.approx(after - before)


LOUD = """
import os
from selftrain.labels.majority import majority as found

def loud(groups, bounds):
    os.write(2, b"a library of C says something")
    return found(groups, bounds)
"""


@pytest.mark.parametrize("closed", [">&-", "<&- 2>&-"])
def test_what_the_caller_has_closed_leads_nowhere(tmp_path: Path, closed: str) -> None:
    """Most of all not into the record."""
    (tmp_path / "mine.py").write_text(LOUD)
    selftrain = f"{shlex.quote(sys.executable)} -m selftrain"
    options = shlex.join([*TOY, *QUICK, "--labels.source", "mine:loud", "--run.num-steps", "3"])
    script = f"{selftrain} train {options} {closed} && {selftrain} evaluate runs/* --evals.num-problems 4 {closed} && {selftrain} verify runs/* --replay"
    told = subprocess.run(["sh", "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    assert ", 0 differences; 3 verdicts, 0 differ; " in told.stdout


def test_evaluate_shows_models_side_by_side(command: Selftrain) -> None:
    called = command("evaluate", "toy", "toy:weak", *QUICK[4:])
    assert called.status == 0, called.err
    lines = called.out.splitlines()
    assert lines[0] == "12 problems of toy:1000000+12, 4 completions each, temperature 1"
    assert lines[2].split()[:4] == ["model", "avg@4", "maj@4", "pass@4"]
    assert lines[3].startswith("toy ")
    assert lines[4].startswith("toy:weak ")
    assert "paired difference to toy" in lines[5]
    assert lines[7].split()[1].startswith("-")


@pytest.mark.parametrize("width", [40, 80])
def test_evaluate_names_the_models_on_a_narrow_terminal(width: int) -> None:
    console = Console(file=StringIO(), force_terminal=True, width=width, record=True, legacy_windows=False)
    names, cells = ["avg@16", "maj@16", "pass@16", "pseudo-label accuracy"], ["100.0 % [25.0, 100.0]", "-", "0.0 % [0.0, 0.0]", "50.0 % [25.0, 75.0]"]
    print_table(console, "percent", names, [("runs/[first]", cells), ("runs/second", cells)])
    text = console.export_text()
    for word in ("runs/[first]", "runs/second", "avg@16", "pseudo-label", "100.0 [25.0, 100.0]", "50.0 [25.0, 75.0]"):
        assert word in " ".join(text.split())
    assert "…" not in text


def test_evaluate_makes_second_turns_of_any_model_and_cuts_no_name(command: Selftrain, tmp_path: Path) -> None:
    model = tmp_path / ("a-long-name-" * 12)
    model.symlink_to(embedded_folder("weak"))
    words = ["--evals.task", "add:2", "--correction.text", "check", "--correction.mode", "own", *QUICK[4:]]
    called = command("evaluate", model, *words, "--rollout.max-new-tokens", "8", "--prompts.template", "raw")
    assert called.status == 0, called.err
    assert "turn 2 - turn 1" in called.out
    assert str(model) in called.out


@pytest.mark.parametrize("name", ["verify", "report", "resume", "export", "query"])
def test_a_file_where_a_run_belongs_is_no_disk_failure(command: Selftrain, tmp_path: Path, name: str) -> None:
    (tmp_path / "run.json").write_text("{}")
    more = {"export": ["out"], "query": ["select 1"]}.get(name, [])
    assert_refused(command(name, "run.json", *more), 2, "run.json")


def test_verify_says_intact_and_replays_without_difference(command: Selftrain, run_copy: Path) -> None:
    head = read(run_copy).head
    called = command("verify", run_copy, "--head", head, "--replay")
    assert called.status == 0, called.err
    assert called.out.splitlines()[0].startswith("intact: ")
    assert called.out.splitlines()[0].endswith(head)
    assert called.out.splitlines()[1] == "replayed: 48 groups, 0 differences; 12 verdicts, 0 differ; 3 probes, 0 differ"


def test_verify_names_a_changed_record_and_exits_with_1(command: Selftrain, run_copy: Path) -> None:
    chain = run_copy / "ledger" / "chain.jsonl"
    lines = chain.read_bytes().splitlines(keepends=True)
    lines[5] = lines[5].replace(b"0", b"1", 1)
    chain.write_bytes(b"".join(lines))
    called = command("verify", run_copy)
    assert called.status == 1
    assert called.out.startswith("damaged: ")
    assert "fault: record 5" in called.out
    assert "record 5" in called.err
    assert "Traceback" not in called.err


def test_verify_with_a_head_of_another_run(command: Selftrain, run_copy: Path) -> None:
    called = command("verify", run_copy, "--head", "0" * 64)
    assert called.status == 1
    assert "that head is not in this record" in called.err
    assert "its record is damaged" not in called.err


def test_verify_with_a_head_that_is_none(command: Selftrain, run_copy: Path) -> None:
    for head in ("zz", read(run_copy).head[:12], read(run_copy).head.upper()):
        assert_refused(command("verify", run_copy, "--head", head), 2, f"--head {head}", "a ledger head is 64 hexadecimal digits", "Give the whole head")


def test_the_toy_policy_cannot_be_exported_and_nobody_says_so(command: Selftrain, run_copy: Path) -> None:
    assert_refused(command("export", run_copy, "out"), 2, "policy.model = toy", "a table of numbers", "Export a run of a real model")
    told = next_commands(read_config(run_copy), "r", "step-000012")
    assert [line.split()[1] for line, _ in told] == ["evaluate", "verify"]
    real = load_config(overrides={"policy.model": "embedded:default", "prompts.task": "add:4"})
    assert next_commands(real, "r", "step-000012")[-1][0] == "selftrain export r r-model"
    assert [line for line, _ in next_commands(real, "r", "start")] == ["selftrain verify r --replay"]
    unasked = load_config(overrides={"policy.model": "m", "prompts.file": "q.jsonl"})  # without held-out problems there is nothing to evaluate on yet
    assert next_commands(unasked, "r", "step-000012")[0][0] == "selftrain evaluate m r --evals.file FILE"
    spaced = [shlex.split(line)[2:] for line, _ in next_commands(real, "my runs/r", "step-000012")]
    assert spaced == [["embedded:default", "my runs/r"], ["my runs/r", "--replay"], ["my runs/r", "my runs/r-model"]]


@pytest.mark.parametrize(("here", "name"), [("made", "."), ("made/ledger", ".."), ("made", "../my run"), ("", "my run")])
def test_a_run_is_what_lies_in_a_folder_whatever_it_is_called(
    command: Selftrain, run_copy: Path, monkeypatch: pytest.MonkeyPatch, here: str, name: str
) -> None:
    shutil.copytree(run_copy, run_copy.parent / "my run")
    monkeypatch.chdir(run_copy.parent / here)
    folder = run_copy.parent / "my run" if "my run" in name else run_copy
    for words in (("report", name), ("verify", name, "--replay"), ("evaluate", name, "--log", "plain")):
        called = command(*words)
        assert called.status == 0, called.err
    assert f"# Report of {folder.name}" in (folder / "report.md").read_text()
    assert_refused(command("resume", name), 2, "it has ended")
    assert_refused(command("export", name, "out"), 2, "a table of numbers")
    config = read_config(Path(name))
    assert (config.run.name, Path(config.run.folder).resolve()) == (folder.name, run_copy.parent)


def test_an_empty_text_is_no_folder(command: Selftrain, run_copy: Path) -> None:
    for words in (("report", ""), ("verify", ""), ("evaluate", ""), ("resume", ""), ("export", run_copy, "")):
        assert_refused(command(*words), 2, "a folder ''", "an empty text names no place")
    assert_refused(command("train", *TOY, "--run.folder", ""), 2, "run.folder = ''", "at least 1 character", "Folder in which run folders are made")


def test_evaluate_shows_what_it_measured_before_a_model_that_cannot_be_loaded(command: Selftrain) -> None:
    called = command("evaluate", "toy", "./nowhere", *QUICK[4:])
    assert called.status == 2
    assert "avg@" in called.out
    assert "nowhere" in called.err


def test_evaluate_refuses_what_a_run_was_trained_on(command: Selftrain, tmp_path: Path) -> None:
    tall = {"policy.model": "embedded:default", "prompts.task": "tall:1", "probes.num_prompts": 0, "evals.num_problems": 8}
    run = start(load_config((), {**tall, "run.folder": str(tmp_path), "run.name": "tall"}))
    shutil.copytree(embedded_folder("default"), run.folder / "checkpoints" / "step-000001")
    run.ledger.append_end("done", "step-000001")
    run.ledger.close()
    trained = run.problems.train.prompts[0]
    (tmp_path / "seen.jsonl").write_text(json.dumps({"prompt": run.problems.train.questions[trained.id][0].content, "answer": "1"}) + "\n")
    more = command("evaluate", run.folder, "--evals.num-problems", "600")
    assert_refused(more, 2, "of 600 are training prompts", "Give --evals.num-problems 8 at most")
    assert_refused(command("evaluate", run.folder, "--evals.file", "seen.jsonl"), 2, "1 of 1 are training prompts", "Take them out")


def test_what_a_run_was_trained_on_is_told_by_texts_and_by_the_prompts_of_its_record(tmp_path: Path) -> None:
    rows = [[{"id": at, "prompt": text.format(at)} for at in range(8)] for text in ("{0}+{0}", "{0}*9")]
    for name, of_file in zip(("train", "other"), rows, strict=True):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps({**row, "answer": "1"}) + "\n" for row in of_file))
    options = {"policy.model": "embedded:default", "prompts.file": str(tmp_path / "train.jsonl"), "rollout.prompts_per_step": 4, "probes.num_prompts": 0}
    run = start(load_config((), {**options, "run.folder": str(tmp_path), "run.name": "r"}))
    run.ledger.append_end("done", "step-000001")
    run.ledger.close()
    asked = {name: load_config((), {**options, "evals.file": str(tmp_path / f"{name}.jsonl")}) for name in ("train", "other")}
    check_unseen(asked["other"], problems_of(asked["other"]), str(run.folder))  # the same ids, other texts
    with pytest.raises(PromptError, match="8 of 8 are training prompts of the run"):
        check_unseen(asked["train"], problems_of(asked["train"]), str(run.folder))
    shutil.copy(tmp_path / "other.jsonl", tmp_path / "train.jsonl")  # another file in the place of what was trained on: nobody can tell
    check_unseen(asked["train"], problems_of(asked["train"]), str(run.folder))


def test_evaluate_checks_what_a_run_hands_over(command: Selftrain, run_copy: Path) -> None:
    handed_over = read_record(run_copy).handed_over
    folder = run_copy / "checkpoints" / handed_over
    (folder / "toy.json").write_text((folder / "toy.json").read_text().replace("1", "2", 1))
    assert_refused(command("evaluate", run_copy, "--log", "json"), 1, f"checkpoint {folder}", "toy.json is not what was written (its checksum differs)")
    left = [path.name for path in sorted(folder.parent.iterdir()) if path != folder]
    shutil.rmtree(folder)
    assert_refused(command("evaluate", run_copy, "--log", "json"), 2, handed_over, "is not there any more", f"The run has {', '.join(left)}")
    shutil.rmtree(folder.parent)
    assert_refused(command("evaluate", run_copy, "--log", "json"), 2, handed_over, "Go back to a copy of the run folder")


def test_replay_says_that_the_answers_are_other_ones(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = command("train", *TOY, "--labels.source", "reference", "--run.num-steps", "2", "--run.name", "made", "--log", "plain")
    assert made.status == 0, made.err
    assert command("verify", "runs/made", "--replay").status == 0
    turned = {prompt.id: "0" for prompt in toy_sets(read_config(Path("runs/made"))).train}
    monkeypatch.setattr("selftrain.replay.load_sets", lambda config: Problems(PromptSet(toy_sets(config).train.prompts, AnswerSheet(turned), "q.jsonl"), None))
    called = command("verify", "runs/made", "--replay")
    assert called.status == 2
    assert "the prompts or true answers of q.jsonl: they are not those the run was started with" in called.err
    assert "replayed" not in called.out


def test_replay_names_a_function_that_is_not_the_one_of_the_run(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    sources = ("--labels.source", "first_of", "--first-of.sources", "own_source:vote", "--first-of.sources", "majority")

    def write(source: str, clustering: str) -> None:
        (tmp_path / "own_source.py").write_text(f"from selftrain.labels.majority import majority\ndef vote(voted, bounds): return {source}\n")
        (tmp_path / "own_clusters.py").write_text(f"def parity(answers): return [{clustering} for one in answers]\n")
        for name in ("own_source", "own_clusters"):
            sys.modules.pop(name, None)

    parity = "one and str(len(one) % 2)"
    write("majority(voted, bounds)", parity)
    made = command("train", *TOY, *sources, "--labels.clustering", "own_clusters:parity", "--run.num-steps", "2", "--run.name", "made", "--log", "plain")
    assert made.status == 0, made.err
    assert "note: " not in command("verify", "runs/made", "--replay").out
    write("list(majority(voted, bounds))", parity)
    same = command("verify", "runs/made", "--replay")
    assert same.status == 0, same.err
    assert "note: first_of.sources=own_source:vote: its module has another source than in the run" in same.out
    write("majority(voted, bounds)", "one")
    other = command("verify", "runs/made", "--replay")
    assert other.status == 1
    assert "note: labels.clustering = own_clusters:parity: its module has another source than in the run" in other.out
    assert "by another function than the one that decided in the run (labels.clustering = own_clusters:parity)" in other.err
    assert "own_source" not in other.out + other.err
    assert "do not trust" not in other.err
    write("majority(", parity)
    broken = command("verify", "runs/made", "--replay")
    assert broken.status == 2
    assert "own_source:vote: it cannot be imported (SyntaxError" in broken.err


def test_replay_finds_a_reward_that_does_not_follow(command: Selftrain, run_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("selftrain.replay.rewards_of", lambda voted, label, rule: None)
    called = command("verify", run_copy, "--replay")
    assert called.status == 1
    assert "48 differences" in called.out
    assert "difference: step 0, group 0, rewards: recorded Rewards(" in called.out
    assert "does not follow from the recorded completions" in called.err


def test_report_of_several_runs(command: Selftrain, run_copy: Path) -> None:
    (run_copy / "report.html").unlink()
    called = command("report", run_copy, f"{run_copy}/")
    assert called.out.splitlines() == [
        *[str(run_copy / "report.html"), str(run_copy / "report.md")] * 2,
        *(str(run_copy.parent / f"comparison.{kind}") for kind in ("html", "md")),
    ]
    elsewhere = command("report", run_copy, run_copy, "--output", run_copy / "made")
    assert elsewhere.out.splitlines()[-1] == str(run_copy / "made" / "comparison.md")
    assert_refused(command("report", run_copy, "--output", run_copy), 2, "a single report stands in its run's folder")
    assert (run_copy / "report.html").exists()


def test_prompts_are_shown_without_their_answers(command: Selftrain, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {i} plus 1?", "answer": f"secret-{i}"} for i in range(20)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    called = command("prompts", "--prompts.file", "q.jsonl", "--policy.model", "some/model", "--show", "2")
    assert called.status == 0, called.err
    assert called.out.splitlines()[0].startswith("training prompts: 20 of q.jsonl, 20 with a true answer, hash ")
    assert called.out.count("user: ") == 2
    assert "What is 0 plus 1?" in called.out
    assert "secret" not in called.out


def test_export_is_a_model_that_transformers_loads(command: Selftrain, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options = ("--prompts.task", "add:4", "--rollout.prompts-per-step", "2", "--rollout.num-votes", "4", "--rollout.max-new-tokens", "8")
    quick = (
        "--evals.num-problems",
        "2",
        "--evals.num-samples",
        "2",
        "--run.num-steps",
        "2",
        "--run.checkpoint-every-steps",
        "1",
        "--run.name",
        "e",
        "--probes.num-prompts",
        "0",
    )
    assert command("train", "--policy.model", "embedded:default", *options, *quick).status == 0
    called = command("export", "runs/e", "out/model")
    assert called.status == 0, called.err
    assert called.out.startswith("out/model: checkpoint step-000002, ")
    files = {path.name for path in (tmp_path / "out" / "model").iterdir()}
    assert {"config.json", "model.safetensors", "README.md"} <= files
    assert not files & {"manifest.json", "optimizer.safetensors", "learner.json"}
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out" / "model", local_files_only=True)
    assert AutoTokenizer.from_pretrained(tmp_path / "out" / "model", local_files_only=True)("1+1").input_ids
    kept = load_file(tmp_path / "runs" / "e" / "checkpoints" / "step-000002" / "model.safetensors")
    assert all(torch.equal(kept[name], value) for name, value in model.state_dict().items() if name in kept)
    card = (tmp_path / "out" / "model" / "README.md").read_text("utf-8")
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "label-free" in card
    assert "| avg@2 |" in card
    assert_refused(command("export", "runs/e", "out/model"), 2, "there is something in it already")
    assert_refused(command("export", "runs/e", "out/other", "--checkpoint", "step-000009"), 2, "there is no such checkpoint", "step-000001, step-000002")
    assert_refused(command("export", "runs/e", "out/other", "--checkpoint", ""), 2, "checkpoint ''", "there is no such checkpoint")
    called = command("export", "runs/e", "out/other", "--checkpoint", "start")
    assert_refused(called, 2, "start is the model it began with", "step-000001, step-000002")
    assert "hands over" not in called.err
    url = f"memory://{tmp_path.name}/model"
    assert command("export", "runs/e", url).out.startswith(f"{url.replace('://', ':///')}: checkpoint step-000002, ")
    store = place(url)
    assert isinstance(store, ObjectPath)
    for file in files:
        assert objects.read_bytes(store / file) == (tmp_path / "out" / "model" / file).read_bytes()
    assert not (tmp_path / "memory:").exists()
    assert_refused(command("export", "runs/e", url), 2, "there is something in it already")
    store.fs.rm(store.parent.path, recursive=True)
    (tmp_path / "runs" / "e" / "checkpoints" / "step-000001" / "config.json").write_text("{}")
    assert_refused(command("export", "runs/e", "out/other", "--checkpoint", "step-000001"), 1, "config.json")
    assert not (tmp_path / "out" / "other").exists()
