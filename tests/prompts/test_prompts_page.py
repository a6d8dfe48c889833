"""docs/prompts.md says what the code does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from selftrain.config import PromptsSection
from selftrain.prompts.files import READERS
from selftrain.prompts.templates import TEMPLATES

PAGE = (Path(__file__).parents[2] / "docs" / "prompts.md").read_text(encoding="utf-8")


def test_every_suffix_and_template_is_there() -> None:
    assert set(re.findall(r"^\| `(\.\w+)`", PAGE, re.MULTILINE)) == set(READERS)
    assert set(re.findall(r"^\| `(\w+)`", PAGE, re.MULTILINE)) == set(TEMPLATES)
    assert TEMPLATES["boxed"] in PAGE


def test_the_config_is_valid() -> None:
    PromptsSection(**tomllib.loads(_block("toml"))["prompts"])


def test_the_python_runs() -> None:
    names: dict[str, object] = {}
    exec(_block("python"), names)
    assert len(names["first"]) == 16  # type: ignore[arg-type]


def _block(language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found.group(1)
