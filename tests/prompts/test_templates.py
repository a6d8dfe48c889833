"""Templates: what the policy is given around a question."""

from __future__ import annotations

import pytest

from selftrain.errors import ConfigError
from selftrain.prompts.templates import apply_template, template_text
from selftrain.types import Message
from tests.prompts.wording import refused


def wrapped(template: str, question: str) -> str:
    return apply_template(template_text(template), (Message("user", question),))[0].content


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("raw", "2 {x}"),
        ("boxed", "2 {x} Let's think step by step and output the final answer within \\boxed{}."),
        ("Q: {prompt}\nA:", "Q: 2 {x}\nA:"),
        ("{0} {prompt} {prompt} {}", "{0} 2 {x} 2 {x} {}"),
    ],
)
def test_text(template: str, text: str) -> None:
    assert wrapped(template, "2 {x}") == text


def test_a_prompt_that_looks_like_a_template_is_left_alone() -> None:
    assert wrapped("boxed", "{prompt}").startswith("{prompt} Let's think")


def test_only_the_last_turn_changes() -> None:
    turns = (Message("user", "1"), Message("assistant", "2"), Message("user", "3"))
    assert [turn.content for turn in apply_template("<{prompt}>", turns)] == ["1", "2", "<3>"]


@pytest.mark.parametrize("template", ["", "Boxed", "Solve: {question}", "{ prompt }"])
def test_without_a_place_for_the_prompt(template: str) -> None:
    refused(lambda: template_text(template), ConfigError, "prompts.template", repr(template), "raw, boxed")
