"""`selftrain profile` on the command line."""

from __future__ import annotations

import json
from pathlib import Path

from selftrain.profile import STAGES
from tests.cli.conftest import QUICK, TOY, Selftrain


def test_the_command_tells_people_and_programs(command: Selftrain) -> None:
    told = command("profile", *TOY, "--steps", "2", "--warmup", "0")
    assert told.status == 0, told.err
    lines = told.out.splitlines()
    assert lines[0].startswith("Mean of 2 steps: ")
    assert [line.split()[0] for line in lines[3 : 3 + len(STAGES) + 1] if not line.startswith("  ")] == list(STAGES)
    assert not Path("runs").exists()
    told = command("profile", *TOY, "--steps", "1", "--json", "--keep")
    values = json.loads(told.out)
    assert values["num_steps"] == 1
    assert set(values["stages_s"]) == set(STAGES)
    assert Path(values["folder"]) == Path("runs/train-0001")
    assert Path("runs/train-0001/run.json").is_file()


def test_a_schedule_that_so_few_steps_do_not_see_is_no_mistake(command: Selftrain) -> None:
    told = command("profile", *TOY, "--steps", "1", "--warmup", "0", "--update.schedule", "cosine")
    assert told.status == 0, told.err


def test_a_mistake_leaves_nothing_behind(command: Selftrain) -> None:
    told = command("profile", "--policy.model", "toy:none", *QUICK)
    assert told.status == 2
    assert "there is no such toy policy" in told.err
    assert not Path("runs").exists()
