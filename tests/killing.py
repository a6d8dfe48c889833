"""Stop a run, or kill it at random moments in processes of their own, and take it up again; or take it back."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.config import RunConfig
from selftrain.config_load import validate
from selftrain.ledger import read
from selftrain.policies.toy import ToyPolicy
from selftrain.replay import replay
from selftrain.run import Outcome, read_config, resume, start
from selftrain.train import StepReport

PRELOADED = ("selftrain.run", "selftrain.policies.toy", "selftrain.checkpoints", "pyarrow.parquet", "tests.killing")


def processes() -> ForkServerContext:
    """Makes processes that have imported everything and done nothing yet: an import costs more than the run that is killed."""
    made = multiprocessing.get_context("forkserver")
    made.set_forkserver_preload([*PRELOADED, *(["selftrain.policies.torch"] if "torch" in sys.modules else [])])
    return made


def work(values: str, told: Connection) -> None:
    """Start a run or take it up; one message when it is there and one of every event."""
    config = validate(json.loads(values))
    folder = Path(config.run.folder) / str(config.run.name)
    run = resume(folder) if (folder / "run.json").exists() else start(config)
    told.send("begun")
    for event in run.events():
        told.send(type(event).__name__)


def begun(config: RunConfig) -> tuple[BaseProcess, Connection]:
    """A process that works at the run, and where it tells of its events."""
    here, there = multiprocessing.Pipe(duplex=False)
    process = processes().Process(target=work, args=(config.model_dump_json(), there))
    process.start()
    there.close()
    here.recv()
    return process, here


def cut_off_and_resumed(config: RunConfig, step: int) -> Outcome:
    """Start the run, stop it after this step, take it up again and let it end."""
    run = start(config)
    for event in run.events():
        if isinstance(event, StepReport) and event.metrics.step == step:
            run.stop()
    return next(event for event in resume(Path(str(config.run.folder)) / str(config.run.name)).events() if isinstance(event, Outcome))


def killed_and_resumed(config: RunConfig, times: int, max_events: int, seed: int = 0) -> int:
    """Start the run, SIGKILL it `times` times after a random number of events (0 to max_events) and up to 50 ms more, then let it end.

    Returns how many processes died by the signal.
    """
    draw, kills = random.Random(seed), 0
    for _ in range(times):
        process, told = begun(config)
        with told:
            with suppress(EOFError):
                for _ in range(draw.randint(0, max_events)):
                    told.recv()
            time.sleep(draw.random() * 0.05)
            process.kill()
            process.join()
        kills += process.exitcode == -signal.SIGKILL
    process, told = begun(config)
    with told, suppress(EOFError):
        while True:
            told.recv()
    process.join()
    assert process.exitcode == 0
    return kills


def assert_it_ends_the_same(expected: Outcome, named: Callable[[str], RunConfig]) -> None:
    """A run that was stopped after step 4, and one that was killed twice, end as one that was neither (`expected`). named: the config of a run of that name."""
    outcome = cut_off_and_resumed(named("cut"), step=4)
    assert (outcome.head, outcome.after) == (expected.head, expected.after)
    assert killed_and_resumed(killed := named("killed"), times=2, max_events=6) == 2
    assert read(Path(killed.run.folder) / str(killed.run.name)).head == expected.head


def assert_a_rollback_takes_the_average_back(config: RunConfig, checkpoint: str) -> None:
    """After it the toy's average is what it was at that place: the checkpoint's, or none yet at the start. What came after the checkpoint is not in it."""
    run = start(config)
    assert isinstance(run.policy, ToyPolicy)
    averages: dict[int, Any] = {}
    for event in run.events():
        if isinstance(event, StepReport):
            assert run.policy._average is not None
            averages[event.metrics.step + 1] = run.policy._average.copy()
            if event.metrics.step == 5 and not run.ledger.branches:
                run.roll_back(checkpoint, "to see", "a test")
                known = None if checkpoint == "start" else averages[int(checkpoint.removeprefix("step-"))]
                assert np.array_equal(run.policy._average, known)  # type: ignore[arg-type]
    again = read(run.folder)
    assert [one.branch for one in again.branches] == [1]
    assert replay(again, read_config(run.folder)).agrees
