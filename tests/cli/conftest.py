"""A command line called in this process, in an empty folder, and a finished toy run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from selftrain.cli import call

QUICK = ("--rollout.prompts-per-step", "4", "--rollout.num-votes", "6", "--evals.num-problems", "12", "--evals.num-samples", "4")
TOY = ("--policy.model", "toy", "--update.learning-rate", "0.1", *QUICK)


@dataclass(frozen=True)
class Called:
    status: int
    out: str
    err: str


Selftrain = Callable[..., Called]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Selftrain:
    monkeypatch.chdir(tmp_path)

    def called(*args: str | Path) -> Called:
        capsys.readouterr()
        status = call([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Called(status, captured.out, captured.err)

    return called


@pytest.fixture(scope="session")
def made_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """runs/made: 12 steps of the toy policy."""
    home = tmp_path_factory.mktemp("made")
    before = Path.cwd()
    os.chdir(home)
    try:
        assert call(["train", *TOY, "--run.num-steps", "12", "--run.checkpoint-every-steps", "4", "--run.name", "made", "--log", "json"]) == 0
    finally:
        os.chdir(before)
    return home / "runs" / "made"


@pytest.fixture
def run_copy(made_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made_run, tmp_path / "runs" / "made"))


def assert_refused(called: Called, status: int, *words: str) -> None:
    """An error in three parts on stderr and nothing else: no traceback, nothing on stdout."""
    assert called.status == status, called.err
    assert called.out == ""
    assert "Traceback" not in called.err
    lines = called.err.splitlines()
    assert lines[0].startswith("error: ")
    assert lines[0].count(": ") >= 2
    assert lines[-1].startswith("  ")
    assert len(lines[-1].strip()) > 10
    for word in words:
        assert word in called.err
