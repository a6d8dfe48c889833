"""Hugging Face datasets: on folders only, nothing is downloaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from selftrain.config import PromptsSection
from selftrain.errors import MissingExtraError, PromptError
from selftrain.prompts import load_prompts
from selftrain.types import PromptSet
from tests.prompts.wording import refused

installed = pytest.mark.skipif(importlib.util.find_spec("datasets") is None, reason="needs the extra `datasets`")


def load(dataset: Path | str, **options: object) -> PromptSet:
    return load_prompts(PromptsSection(dataset=str(dataset), **{"template": "raw", **options}), seed=0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "sums"
    path.mkdir()
    (path / "train.jsonl").write_text('{"prompt": "1+1", "answer": 2, "note": [1]}\n{"prompt": "2+2", "answer": 4, "note": [2]}\n')
    return path


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused(lambda: load("openai/gsm8k:main"), MissingExtraError, "prompts.dataset = 'openai/gsm8k:main'", "pip install 'selftrain[datasets]'")


@installed
def test_a_folder(folder: Path) -> None:
    read = load(folder)
    assert [prompt.text for prompt in read] == ["1+1", "2+2"]
    assert [read.sheet.answer_of(prompt.id) for prompt in read] == ["2", "4"]
    assert read.origin == f"{folder} (train)"
    assert len(load(folder, count=1)) == 1


@installed
@pytest.mark.filterwarnings("ignore")  # dill, which datasets uses, warns while it hashes
def test_nested_answers_saved_to_disk(tmp_path: Path) -> None:
    import datasets

    rows = [{"prompt": [{"role": "user", "content": "1+1"}], "reward_model": {"ground_truth": "2"}}]
    datasets.DatasetDict({"train": datasets.Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "saved"))
    read = load(tmp_path / "saved", answer_field="reward_model.ground_truth")
    assert read.sheet.answer_of(read.prompts[0].id) == "2"
    refused(lambda: load(tmp_path / "saved", dataset_split="test"), PromptError, "split 'test'", "its splits are train")


@installed
@pytest.mark.parametrize(
    ("suffix", "options", "words"),
    [
        ("", {"dataset_split": "test"}, ["split 'test'", "cannot be loaded"]),
        ("", {"prompt_field": "question"}, ["row 1 of", "no column 'question'; its columns are 'prompt', 'answer', 'note'"]),
        (":extra", {}, ["cannot be loaded", "extra"]),
        ("-none", {}, ["cannot be loaded"]),
    ],
)
def test_errors(folder: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, options: dict[str, str], words: list[str]) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    refused(lambda: load(f"{folder}{suffix}", **options), PromptError, *words)
