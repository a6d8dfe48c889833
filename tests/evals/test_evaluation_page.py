"""docs/evaluation.md says what the code does."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from selftrain.evals import Evaluation, SecondTurnSummary
from selftrain.evals.bootstrap import NUM_RESAMPLES

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")


def test_every_number_is_explained() -> None:
    numbers = {name for name, value in vars(Evaluation).items() if isinstance(value, property)}
    explained = {name for row in re.findall(r"^\|.*\| ([^|]*) \|$", PAGE, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    second = {field.name for field in fields(SecondTurnSummary)}
    assert numbers - {"second_turn"} | second == explained - {"Evaluation"}
    assert f"{NUM_RESAMPLES:,} bootstrap resamples" in PAGE


def test_the_python_runs(capsys: pytest.CaptureFixture[str]) -> None:
    found = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    exec(found.group(1), {})
    assert len(capsys.readouterr().out.splitlines()) == 2
