"""The [prompts] and [evals] sections -> prompt sets."""

from __future__ import annotations

from pathlib import Path

import pytest

from selftrain.config import EvalsSection, PromptsSection
from selftrain.errors import ConfigError, PromptError
from selftrain.prompts import check_disjoint, load_problems, load_prompts, prompt_set_hash
from tests.prompts.wording import refused


def ids(prompts: object) -> frozenset[str]:
    return frozenset(prompt.id for prompt in prompts)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("given_options", "words"),
    [
        ({}, ["none of prompts.file, prompts.dataset and prompts.task"]),
        ({"file": "a.jsonl", "task": "add:4"}, ["prompts.file = 'a.jsonl' and prompts.task = 'add:4'"]),
        ({"file": "a.jsonl", "dataset": "b", "task": "add:4"}, ["prompts.file = 'a.jsonl' and prompts.dataset = 'b' and prompts.task = 'add:4'"]),
    ],
)
def test_exactly_one_source(given_options: dict[str, str], words: list[str]) -> None:
    refused(lambda: load_prompts(PromptsSection(**given_options), 0), ConfigError, "exactly one", *words)


def test_a_bad_template_is_found_before_the_file_is_opened() -> None:
    refused(lambda: load_prompts(PromptsSection(file="none.jsonl", template="no place"), 0), ConfigError, "prompts.template")


def test_a_task_makes_1024_raw_prompts() -> None:
    made = load_prompts(PromptsSection(task="add:4"), seed=0)
    assert len(made) == len(ids(made)) == 1024
    question = made.prompts[0].text
    left, right = question.split("+")
    assert made.sheet.answer_of(made.prompts[0].id) == str(int(left) + int(right))


def test_seeds() -> None:
    section = PromptsSection(task="add:4", count=50)
    assert prompt_set_hash(load_prompts(section, 1)) == prompt_set_hash(load_prompts(section, 1))
    assert prompt_set_hash(load_prompts(section, 1)) != prompt_set_hash(load_prompts(section, 2))


def test_mixture_in_equal_parts_with_a_template() -> None:
    made = load_prompts(PromptsSection(task="add:4,sort:3", count=10, template="<{prompt}>"), seed=0)
    assert sum(prompt.id.startswith("add-4/") for prompt in made) == 5
    assert all(prompt.text.startswith("<") and prompt.text.endswith(">") for prompt in made)
    assert all(prompt.id in made.sheet for prompt in made)


def test_unknown_task() -> None:
    refused(lambda: load_prompts(PromptsSection(task="ad:4"), 0), PromptError, "did you mean add?")


class TestHeldOut:
    def test_of_the_training_task(self) -> None:
        section = PromptsSection(task="add:1", count=60)
        held_out = load_problems(EvalsSection(num_problems=40), section, seed=5)
        assert held_out is not None
        train = load_prompts(section, 5, ids(held_out))
        assert len(held_out) == 40
        assert len(train) == 60
        check_disjoint(train, held_out)
        assert len(ids(train) | ids(held_out)) == 100

    def test_does_not_depend_on_the_number_of_training_prompts(self) -> None:
        few, many = (load_problems(EvalsSection(), PromptsSection(task="add:4", count=count), seed=5) for count in (10, 500))
        assert few == many

    def test_of_another_task(self) -> None:
        held_out = load_problems(EvalsSection(task="sort:3", num_problems=3), PromptsSection(task="add:4"), seed=0)
        assert held_out is not None
        assert all(prompt.id.startswith("sort-3/") for prompt in held_out)

    def test_of_a_file_with_fewer_problems(self, tmp_path: Path) -> None:
        path = tmp_path / "test.jsonl"
        path.write_text('{"q": "1", "a": 1}\n{"q": "2", "a": 2}\n')
        section = PromptsSection(file="train.jsonl", prompt_field="q", answer_field="a", template="raw")
        held_out = load_problems(EvalsSection(file=str(path)), section, seed=0)
        assert held_out is not None
        assert [(prompt.text, held_out.sheet.answer_of(prompt.id)) for prompt in held_out] == [("1", "1"), ("2", "2")]
        first = load_problems(EvalsSection(file=str(path), num_problems=1), section, seed=0)
        assert first is not None
        assert len(first) == 1

    def test_none_for_a_file_run(self) -> None:
        assert load_problems(EvalsSection(), PromptsSection(file="train.jsonl"), seed=0) is None

    def test_file_and_task(self) -> None:
        refused(lambda: load_problems(EvalsSection(file="a", task="b"), PromptsSection(), 0), ConfigError, "evals.file = 'a' and evals.task = 'b'")
