"""When two prompts, and two sets of prompts, are the same."""

from __future__ import annotations

import hashlib

import pytest

from selftrain.errors import PromptError
from selftrain.prompts import check_disjoint, prompt_set_hash
from selftrain.prompts.identity import content_id
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet
from tests.prompts.wording import refused


def prompt(prompt_id: str, text: str, role: str = "user") -> Prompt:
    return Prompt(prompt_id, (Message(role, text),))


def a_set(*prompts: Prompt, answers: dict[str, str] | None = None, origin: str = "here") -> PromptSet:
    return PromptSet(prompts, AnswerSheet(answers or {}), origin)


def test_hash_of_one_prompt_by_hand() -> None:
    assert prompt_set_hash([prompt("a", "1+1")]) == hashlib.sha256(b'"a"\t[["user", "1+1"]]\n').hexdigest()
    assert prompt_set_hash([]) == hashlib.sha256(b"").hexdigest()


def test_answers_do_not_change_the_hash() -> None:
    one = prompt("a", "1+1")
    assert prompt_set_hash(a_set(one, answers={"a": "2"})) == prompt_set_hash(a_set(one, answers={"a": "3"})) == prompt_set_hash(a_set(one))


@pytest.mark.parametrize(
    "other",
    [
        [prompt("b", "1"), prompt("a", "2")],
        [prompt("a", "2"), prompt("b", "1")],
        [prompt("a", "1"), prompt("c", "2")],
        [prompt("a", "1", "system"), prompt("b", "2")],
        [prompt("a", "1")],
    ],
)
def test_everything_else_does(other: list[Prompt]) -> None:
    assert prompt_set_hash(other) != prompt_set_hash([prompt("a", "1"), prompt("b", "2")])


def test_content_id() -> None:
    assert content_id((Message("user", "1+1"),)) == hashlib.sha256(b'[["user", "1+1"]]').hexdigest()[:16]


def test_disjoint_sets_pass() -> None:
    check_disjoint(a_set(prompt("a", "1+1")), a_set(prompt("b", "1+2")))
    check_disjoint(a_set(), a_set())


@pytest.mark.parametrize(
    ("held_out", "named"),
    [
        (prompt("a", "something else"), "a (training: a)"),
        (prompt("z", "How many?"), "z (training: a)"),
        (prompt("z", "  HOW\n many? "), "z (training: a)"),
    ],
)
def test_overlap(held_out: Prompt, named: str) -> None:
    train = a_set(prompt("a", "how many?"), prompt("b", "b"), origin="train.jsonl")
    error = refused(lambda: check_disjoint(train, a_set(prompt("y", "new"), held_out, origin="test.jsonl")), PromptError, named, "train.jsonl")
    assert error.given == "held-out problems of test.jsonl"
    assert "1 of 2" in error.why


def test_only_the_first_overlaps_are_named() -> None:
    same = a_set(*(prompt(str(i), str(i)) for i in range(5)))
    refused(lambda: check_disjoint(same, same), PromptError, "5 of 5", "0 (training: 0), 1 (training: 1), 2 (training: 2) and 2 more")


def test_a_system_turn_makes_another_prompt() -> None:
    asked = Prompt("b", (Message("system", "be brief"), Message("user", "1+1")))
    check_disjoint(a_set(prompt("a", "1+1")), a_set(asked))
