"""The benchmarks beside the guard's laboratory: what they ask a real model, and where they say that a guard would halt."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.test_guard_judgement import modules

__all__ = ["modules"]


def test_the_sums_are_right_and_those_of_a_set_are_in_no_other(modules: Mapping[str, ModuleType], tmp_path: Path) -> None:
    real = modules["guard_real"]
    train, held_out = ([json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in real.files(tmp_path, 3))
    assert len(held_out) == real.PROBLEMS
    asked = [row["prompt"] for row in (*train, *held_out)]
    assert len(asked) == len(set(asked)) == 29 * 8 + sum(first >= second for first in range(2, 31) for second in range(2, 10))
    for row in (*train, *held_out):
        first, sign, second = row["prompt"].split()
        assert int(row["answer"]) == (int(first) + int(second) if sign == "+" else int(first) - int(second)) >= 0
    assert real.sums(3) != real.sums(4)


def test_the_runs_of_a_real_model_are_told_from_those_of_the_laboratory(modules: Mapping[str, ModuleType], tmp_path: Path) -> None:
    real, runs = modules["guard_real"], modules["guard_runs"]
    cells = list(real.cells())
    assert [runs.cell_of(cell.name) for cell in cells] == cells
    assert {cell.seed for cell in cells[: len(real.WAYS)]} == {0}
    config = real.config_of(cells[0], tmp_path, Path("model"))
    assert (config.guard.action, config.policy.lora_rank, config.labels.source) == ("warn", 16, "majority")


def rows_of(kept: list[float]) -> list[dict[str, Any]]:
    """After so many steps this share of each of 40 prompts is kept, and a completion has that much of its probability."""
    prompts = [f"p{at}" for at in range(40)]
    rows: list[dict[str, Any]] = []
    for value in kept:
        shares = {name: value + 0.01 * (at % 3) for at, name in enumerate(prompts)}
        metrics = {"vote/share_mean_frac": 0.5, "probe/base_kept_frac": value}
        rows.append({"accuracy": value, "metrics": metrics, "kept": shares, "seen": shares, "glance": shares, "probe": {"probe/base_kept_frac": value}})
    return rows


def test_a_guard_halts_where_it_looks_and_not_where_it_does_not(modules: Mapping[str, ModuleType]) -> None:
    halted_at = modules["guard_pace"].halted_at
    falls = rows_of([1.0, 1.0, 1.0, 0.5, 0.4, 0.3, 0.2, 0.2, 0.2])
    assert halted_at(falls, range(1, 9), (32,), 20) == 3
    assert halted_at(falls, {1, 2, 5}, (32,), 20) == 5
    assert halted_at(falls, {1, 2}, (32,), 20) is None
    assert halted_at(falls, (), (32,), 4) == 4
    assert halted_at(rows_of([1.0] * 9), range(1, 9), (32,), 4) is None
    looks = modules["guard_pace"].Glances()
    assert halted_at(falls, range(1, 9), (16, 32), 20, looks) == 3
    assert (looks.made, looks.prompts, looks.called) == (3, 3 * 32, 1)
    rises, looks = rows_of([0.5, 0.6, 0.7, 0.8, 0.9]), modules["guard_pace"].Glances()
    assert halted_at(rises, range(1, 9), (16, 32), 20, looks) is None
    assert (looks.made, looks.prompts, looks.called) == (3, 3 * 16, 0)


def test_runs_of_the_same_cells_are_paired(modules: Mapping[str, ModuleType]) -> None:
    """By label source and altogether: what the first hands over minus what the second does, the best checkpoints the same way."""
    pairs = modules["guard_pairs"]
    first, second = pairs.Ends((0.25, 0.25), (0.75, 0.75), (1.0, 1.0)), pairs.Ends((0.25, 0.25), (0.5, 0.5), (0.5, 0.5))
    page = pairs.beside_page({"a": (first, second), "b": (second, second)}, {"a": "majority", "b": "ema"})
    rows = {line.split(" | ")[0].strip("| "): line for line in page.splitlines()[2:]}
    assert rows.keys() == {"all", "ema", "majority"}
    assert rows["all"].startswith("| all | 2 | +37.5 [+25.0, +50.0], +25.0 [+25.0, +25.0] | +12.5 [+0.0, +25.0] | +25.0 [+0.0, +50.0] |")
    assert "| 1 | +50.0 [+50.0, +50.0], +25.0 [+25.0, +25.0] | +25.0 [+25.0, +25.0] | +50.0 [+50.0, +50.0] |" in rows["majority"]
