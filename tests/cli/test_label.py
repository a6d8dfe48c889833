"""`selftrain label`: what it says, how it is stopped, killed and taken up, and what it refuses."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from selftrain import stored_labels
from selftrain.ledger import read
from tests.cli.conftest import QUICK, TOY, Selftrain, assert_refused

LABEL = ("label", "--policy.model", "toy:weak", "--prompts.count", "40", "--rollout.prompts-per-step", "8", "--rollout.num-votes", "6")


def test_a_run_trains_on_what_the_command_wrote(command: Selftrain, tmp_path: Path) -> None:
    called = command(*LABEL, "--out", "labels.jsonl")
    assert called.status == 0, called.err
    lines = called.out.splitlines()
    assert lines[0] == "40 prompts of toy:0+40, 6 votes each by toy:weak"
    assert lines[1].startswith("outcomes: decided ")
    third = json.loads(command(*LABEL, "--out", "labels.jsonl", "--log", "json").out)
    assert lines[2].startswith(f"the easiest third: --labels.min-share-frac {int(1000 * third['easiest_third_share_frac']) / 1000:g} trains on the ")
    shares = [json.loads(row)["share_frac"] for row in (tmp_path / "labels.jsonl").read_text().splitlines()[1:]]
    assert f"the {sum(share >= third['easiest_third_share_frac'] for share in shares)} of 40 that reach it" in lines[2]
    again = command(*LABEL, "--out", "labels.jsonl", "--log", "json")
    found = json.loads(again.out)
    assert (found["num_prompts"], found["num_kept"], sum(found["outcome_fracs"].values())) == (40, 40, 1.0)
    assert found["sha256"] in lines[3]
    easy = ("--prompts.count", "40", "--labels.min-share-frac", repr(found["easiest_third_share_frac"]))
    done = command(
        "train", *TOY, *easy, "--labels.source", "stored", "--stored.file", "labels.jsonl", "--run.num-steps", "10", "--run.name", "a", "--log", "json"
    )
    assert done.status == 0, done.err
    rows = {row["prompt_id"]: row for row in map(json.loads, (tmp_path / "labels.jsonl").read_text().splitlines()[1:])}
    ledger = read(tmp_path / "runs" / "a")
    groups = [one for step in ledger.group_steps() for one in ledger.groups(step)]
    assert {one.voted.group.prompt.id for one in groups} == set(rows)
    for one in groups:
        row = rows[one.voted.group.prompt.id]
        assert one.label.is_decided == (row["outcome"] == "decided" and row["share_frac"] >= found["easiest_third_share_frac"])
    decided = {one.voted.group.prompt.id for one in groups if one.label.is_decided}
    assert 10 <= len(decided) <= 25
    assert "votes that a model gave on the prompts before the run" in command("report", "runs/a").out + (tmp_path / "runs/a/report.md").read_text()


def test_the_config_may_name_the_file(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_text('[policy]\nmodel = "toy"\n[labels]\nsource = "stored"\n[stored]\nfile = "labels-{seed}.jsonl"\n[prompts]\ncount = 20\n')
    assert command("label", "c.toml").status == 0
    assert (tmp_path / "labels-0.jsonl").exists()
    assert command("train", "c.toml", *QUICK, "--run.num-steps", "2").status == 0


def test_a_comparison_holds_stored_labels_for_every_seed(command: Selftrain, tmp_path: Path) -> None:
    assert command(*LABEL, "--out", "labels-0.jsonl").status == 0
    shared = ("compare", *TOY[2:], "--prompts.count", "40", "--run.num-steps", "2", "--models", "toy", "--sources", "majority", "stored")
    refused = command(*shared, "--stored.file", "labels-{seed}.jsonl", "--seeds", "0", "1", "--folder", "runs/c")
    assert_refused(refused, 2, "stored labels labels-1.jsonl", "there is no such file")
    done = command(*shared, "--stored.file", "labels-0.jsonl", "--seeds", "0", "1", "--folder", "runs/c", "--log", "plain")
    assert done.status == 0, done.err
    headers = [read(tmp_path / f"runs/c/toy-{source}-seed-1").header for source in ("stored", "majority")]
    assert [header.get("stored_labels", {}).get("model") for header in headers] == ["toy:weak", None]


def test_killed_again_and_again_it_ends_with_the_same_file(command: Selftrain, tmp_path: Path) -> None:
    """The process is killed after 2 to 8 of 40 calls of the sampler, at a moment that chance picks."""
    options = [*LABEL, "--prompts.count", "200", "--rollout.prompts-per-step", "5"]
    assert command(*options, "--out", "whole.jsonl").status == 0
    slow = "import sys, time; from selftrain.policies.toy import ToyPolicy as T; f = T.sample\n"
    slow += "def sample(self, *a):\n    time.sleep(0.02)\n    return f(self, *a)\n"
    slow += "T.sample = sample\nfrom selftrain.cli import call; sys.exit(call(sys.argv[1:]))"
    words = [sys.executable, "-c", slow, *options, "--out", "killed.jsonl"]
    file, sizes = tmp_path / "killed.jsonl", []
    for _ in range(3):
        before = file.stat().st_size if file.exists() else 0
        process = subprocess.Popen(words, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not file.exists() or file.stat().st_size < before + 3000):
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        sizes.append(file.stat().st_size)
    assert sizes == sorted(set(sizes))
    assert sizes[-1] < (tmp_path / "whole.jsonl").stat().st_size
    called = command(*options, "--out", "killed.jsonl")
    assert "of them by an earlier call" in called.out
    assert file.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_another_systems_line_ends_are_named(command: Selftrain, tmp_path: Path) -> None:
    assert command(*LABEL, "--out", "labels.jsonl").status == 0
    file = tmp_path / "labels.jsonl"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    assert_refused(command(*LABEL, "--out", "labels.jsonl"), 2, "--out labels.jsonl", "but for white space")


def test_ctrl_c_says_how_it_goes_on(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows_of, calls = stored_labels.rows_of, []

    def interrupted(*args: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return rows_of(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(stored_labels, "rows_of", interrupted)
    called = command(*LABEL, "--out", "labels.jsonl")
    assert (called.status, called.out) == (130, "")
    assert "The same command goes on from there." in called.err
    assert len((tmp_path / "labels.jsonl").read_text().splitlines()) == 1 + 2 * 8
    assert command(*LABEL, "--out", "labels.jsonl").out.splitlines()[0].endswith("16 of them by an earlier call")


def test_what_cannot_be_labelled(command: Selftrain, tmp_path: Path) -> None:
    assert_refused(command("label", "--policy.model", "toy"), 2, "--out", "no file is named", "--out labels.jsonl")
    assert_refused(command(*LABEL, "--out", "no/labels.jsonl"), 2, "there is no folder no")
    assert_refused(command(*LABEL, "--out", "l.jsonl", "--labels.clustering", "overlap"), 2, "labels.clustering = overlap", "exact, text")
    (tmp_path / "mine.txt").write_text("my notes")
    assert_refused(command(*LABEL, "--out", "mine.txt"), 2, "it does not hold stored labels", "Choose another file")
    assert (tmp_path / "mine.txt").read_text() == "my notes"
    assert command(*LABEL, "--out", "labels.jsonl").status == 0
    whole = (tmp_path / "labels.jsonl").read_bytes()
    other = command(*LABEL, "--out", "labels.jsonl", "--rollout.temperature", "0.7", "--policy.model", "toy")
    assert_refused(other, 2, "model = toy:weak there, toy now", "sampling.temperature = 1.0 there, 0.7 now", "choose another file")
    with (tmp_path / "labels.jsonl").open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert_refused(command(*LABEL, "--out", "labels.jsonl"), 2, "another process is writing it")
    assert (tmp_path / "labels.jsonl").read_bytes() == whole


def test_a_file_from_which_rows_were_taken_out_is_not_gone_on_with(command: Selftrain, tmp_path: Path) -> None:
    """What was taken out cannot be told from what is not done yet, and appending at the end would label other prompts twice."""
    assert command(*LABEL, "--out", "labels.jsonl").status == 0
    file = tmp_path / "labels.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:3] + lines[4:]))
    assert_refused(command(*LABEL, "--out", "labels.jsonl"), 2, "row 3 is of prompt", "rows were taken out or moved", "--stored.file")
    assert file.read_bytes() == b"".join(lines[:3] + lines[4:])
    assert command("train", *TOY, "--prompts.count", "40", "--labels.source", "stored", "--stored.file", "labels.jsonl", "--run.num-steps", "2").status == 0


def test_a_broken_header_and_a_folder_are_refused_in_words(command: Selftrain, tmp_path: Path) -> None:
    assert command(*LABEL, "--out", "labels.jsonl").status == 0
    file = tmp_path / "labels.jsonl"
    head, _, rest = file.read_text().partition("\n")
    for name in ("prompts", "model_hash"):
        file.write_text(json.dumps({key: value for key, value in json.loads(head).items() if key != name}) + "\n" + rest)
        train = ("train", *TOY, "--prompts.count", "40", "--labels.source", "stored", "--run.num-steps", "2")
        assert_refused(command(*train, "--stored.file", "labels.jsonl"), 2, f"the header has no {name}")
    assert_refused(command(*train, "--stored.file", "."), 2, "it is a folder")
