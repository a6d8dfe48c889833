"""Which prompts are held aside: none that is trained on, none that is held out, and no true answer with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from selftrain.compose import load_sets
from selftrain.compose_probes import make_probes, set_aside
from selftrain.config import RunConfig
from selftrain.errors import ConfigError
from selftrain.probes import Kind
from selftrain.prompts import ids_of_forms, tasks
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet


def config(**sections: dict[str, Any]) -> RunConfig:
    return RunConfig.model_validate(sections)


def filed(count: int) -> PromptSet:
    prompts = tuple(Prompt(f"row-{i}", (Message("user", f"How much is {i} and 5?"),)) for i in range(count))
    return PromptSet(prompts, AnswerSheet({prompt.id: "1" for prompt in prompts}), "file")


FILE = config(prompts={"file": "questions.jsonl"})


def test_a_task_makes_further_problems() -> None:
    """Three times as many as are asked at first, these in front."""
    named = config(prompts={"task": "add:3", "count": 64}, evals={"num_problems": 32})
    problems = load_sets(named)
    assert problems.held_out is not None
    train, aside = set_aside(named, problems.train, [problems.held_out], 16)
    assert train is problems.train
    assert len(aside) == 48
    assert set_aside(named, problems.train, [problems.held_out], 8)[1].prompts == aside.prompts[:24]
    assert not ids_of_forms(aside) & (ids_of_forms(train) | ids_of_forms(problems.held_out))
    assert len(aside.sheet) == 0
    assert set_aside(named, problems.train, [problems.held_out], 16)[1] == aside


def test_a_task_without_further_problems_lends_some() -> None:
    named = config(prompts={"task": "add:1"}, evals={"num_problems": 10})
    problems = load_sets(named)
    assert problems.held_out is not None
    train, aside = set_aside(named, problems.train, [problems.held_out], 8)
    assert len(aside) == 8
    assert len(train) == len(problems.train) - 8
    assert not {prompt.id for prompt in train} & {prompt.id for prompt in aside}


def test_a_file_lends_the_same_prompts_whatever_else_is_in_it() -> None:
    train, aside = set_aside(FILE, filed(200), (), 16)
    assert (len(train), len(aside), len(aside.sheet)) == (184, 16, 0)
    assert not {prompt.id for prompt in train} & {prompt.id for prompt in aside}
    turned = replace(filed(200), prompts=tuple(reversed(filed(200).prompts)))
    assert {prompt.id for prompt in set_aside(FILE, turned, (), 16)[1]} == {prompt.id for prompt in aside}


def test_a_small_file_keeps_its_prompts() -> None:
    train, aside = set_aside(FILE, filed(127), (), 16)
    assert train == filed(127)
    assert len(aside) == 16
    assert {prompt.id for prompt in aside} < {prompt.id for prompt in train}


def test_of_a_middling_file_an_eighth_is_held_aside() -> None:
    for rows, wanted, taken in ((400, 96, 50), (128, 96, 16), (127, 96, 0), (800, 96, 96), (64, 8, 8), (63, 8, 0)):
        train, aside = set_aside(FILE, filed(rows), (), wanted)
        assert (len(train), len(aside)) == (rows - taken, taken or min(rows, wanted)), rows


def test_canaries_are_problems_with_the_answer_of_the_program() -> None:
    named = config(prompts={"file": "questions.jsonl"}, probes={"canaries": ["add:2", "sort:3"], "num_prompts": 16})
    made = make_probes(named, set_aside(named, filed(200), (), 16)[1])
    canaries = list(made.of_kind(Kind.CANARY))
    assert len(canaries) == len(made.canaries) == 16
    assert all(one.prompt.text.endswith(r"\boxed{}.") for one in canaries)
    for one in canaries:
        question = one.prompt.text.partition(" Let's")[0]
        assert tasks.task(one.of.partition("-")[0]).check(question, made.canaries[one.of])


@pytest.mark.parametrize(("model", "name"), [("embedded:default", "ad:2"), ("embedded:default", "add:99"), ("toy", "add:2")])
def test_canaries_that_cannot_be(model: str, name: str) -> None:
    named = config(policy={"model": model}, prompts={"file": "questions.jsonl"}, probes={"canaries": [name]})
    with pytest.raises(ConfigError, match=r"probes\.canaries"):
        make_probes(named, filed(16))
