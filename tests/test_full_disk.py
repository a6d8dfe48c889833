"""A run whose disk fills up ends with a clear error, and goes on from there when there is room again."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

from selftrain.config_load import load_config
from selftrain.ledger import read
from selftrain.run import Outcome, resume, train_to_end
from tests.test_train import SMALL

LIMIT_BYTES = 40_000


def small_files() -> None:
    """No file of this process may grow above the limit: every write beyond it fails as on a full disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (LIMIT_BYTES, LIMIT_BYTES))


def test_a_full_disk_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    options = {**SMALL, "run.num_steps": 40, "rollout.prompts_per_step": 4, "rollout.num_votes": 8, "run.folder": str(tmp_path)}
    expected = train_to_end(load_config(overrides={**options, "run.name": "whole"}))
    assert (tmp_path / "whole" / "ledger" / "chain.jsonl").stat().st_size > LIMIT_BYTES
    flags = [part for name, value in {**options, "run.name": "cut"}.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    done = subprocess.run(
        [sys.executable, "-m", "selftrain", "train", "--log", "plain", *flags],
        capture_output=True,
        text=True,
        preexec_fn=small_files,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "resume" in done.stderr
    before = list(read(tmp_path / "cut").steps())
    assert 3 < len(before) < 40
    outcome = next(event for event in resume(tmp_path / "cut").events() if isinstance(event, Outcome))
    assert outcome.head == expected.head
    assert list(read(tmp_path / "cut").steps())[: len(before)] == before
