"""Rows of a table -> PromptSet: what a row must hold, and every way in which it may not."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from selftrain.errors import PromptError
from selftrain.prompts.identity import content_id
from selftrain.prompts.templates import apply_template
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet

_ROLES = ("system", "user", "assistant")
_HALF_CHARACTER = re.compile("[\ud800-\udfff]")
_SOLUTION_END = re.compile(r"\n#### *([^\n]+)\s*$")


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands, for messages: `line 3` of a text file, `row 3` of a table, both counted from 1."""

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what. A name with dots reaches into nested tables where no column has that very name: `reward_model.ground_truth`."""

    prompt: str
    answer: str


def prompt_set(rows: Iterable[Row], columns: Columns, template: str, count: int | None, origin: str) -> PromptSet:
    """The first `count` rows (None: all of them) as prompts in the template's text, their answers beside them.

    A prompt's id is its `id` column, or else the hash of its messages before the template. PromptError names the row and what is wrong with it.
    """
    prompts: list[Prompt] = []
    answers: dict[str, str] = {}
    questions: dict[str, tuple[Message, ...]] = {}
    places_by_id: dict[str, str] = {}
    places_by_messages: dict[tuple[Message, ...], str] = {}
    for row in islice(rows, count):
        given = f"{row.place} of {origin}"
        messages = _messages(row, columns.prompt, given)
        prompt = Prompt(_id(row, messages, given), apply_template(template, messages))
        _check_new(places_by_messages, prompt.messages, row.place, f"{origin}, {row.place}", "the same prompt")
        _check_new(places_by_id, prompt.id, row.place, f"{origin}, {row.place}", f"the id {prompt.id!r}")
        prompts.append(prompt)
        questions[prompt.id] = messages
        answer = answer_text(_value(row.values, columns.answer))
        if answer:
            answers[prompt.id] = answer
    if not prompts:
        raise PromptError(origin, "it has no prompts", "give at least as many prompts as rollout.prompts_per_step asks for")
    if count is not None and len(prompts) < count:
        raise PromptError(f"prompts.count = {count}", f"{origin} has {len(prompts)} prompts", f"set it to {len(prompts)} or less, or leave it out to use all")
    return PromptSet(tuple(prompts), AnswerSheet(answers), origin, questions)


def answer_text(answer: Any) -> str:
    """A true answer as text, empty where there is none (null, not-a-number, blank): numbers as they are printed, nested values as JSON.

    Of a whole solution that ends in a line `#### 72` (the form of GSM8K) it is what stands after the mark.
    """
    if answer is None or answer != answer:
        return ""
    if isinstance(answer, (bool, list, dict)):
        return json.dumps(answer, ensure_ascii=False, default=str)
    if not isinstance(answer, str):
        return str(answer)
    solution = _SOLUTION_END.search(answer)
    return solution.group(1).strip() if solution else answer.strip()


def _check_new(places: dict[Any, str], value: Any, place: str, given: str, what: str) -> None:
    if value in places:
        raise PromptError(given, f"{places[value]} has {what} already", "keep one of the two rows: each prompt is drawn once in an epoch")
    places[value] = place


def _id(row: Row, messages: tuple[Message, ...], given: str) -> str:
    value = row.values.get("id")
    if value is None:
        return content_id(messages)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise PromptError(given, f"its id is {_shown(value)}", "write a text or a whole number as id, or leave the column out")
    return _whole(str(value), given)


def _messages(row: Row, column: str, given: str) -> tuple[Message, ...]:
    value = _value(row.values, column)
    if value is None:
        if column in row.values:
            raise PromptError(given, f"its column {column!r} is empty", "write a prompt or remove the row")
        found = ", ".join(repr(name) for name in row.values) or "none"
        do = "name the column with the prompt in prompts.prompt_field; training, held-out and validation problems have it under one name"
        raise PromptError(given, f"it has no column {column!r}; its columns are {found}", do)
    if isinstance(value, str):
        return (Message("user", _content(value, given)),)
    if isinstance(value, list):
        return _conversation(value, given)
    raise PromptError(given, f"its prompt is {_shown(value)}", "write a text, or a list of {role, content} messages")


def _conversation(turns: list[Any], given: str) -> tuple[Message, ...]:
    messages = []
    for number, turn in enumerate(turns, start=1):
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise PromptError(given, f"message {number} of its prompt is {_shown(turn)}", "write each message as {role, content}, both texts")
        role = turn.get("role")
        if role not in _ROLES:
            raise PromptError(given, f"message {number} of its prompt has the role {_shown(role)}", f"the roles are {', '.join(_ROLES)}")
        if role == "system" and number > 1:
            raise PromptError(given, f"message {number} of its prompt is a system turn", "a system turn is the first message")
        messages.append(Message(role, _content(turn["content"], given)))
    if not messages or messages[-1].role != "user":
        last = f"ends in a turn of the {messages[-1].role}" if messages else "is a list without messages"
        raise PromptError(given, f"its prompt {last}", "the last message is the user's: the policy writes the next one")
    return tuple(messages)


def _content(text: str, given: str) -> str:
    if not text.strip():
        raise PromptError(given, "its prompt is empty", "write a prompt or remove the row")
    return _whole(text, given)


def _whole(text: str, given: str) -> str:
    """The text, when it can be encoded."""
    half = _HALF_CHARACTER.search(text)
    if half:
        raise PromptError(given, f"it holds half a character ({half.group()!a}) that no tokenizer can read", "write the whole character")
    return text


def _value(values: Mapping[str, Any], column: str) -> Any:
    if column in values:
        return values[column]
    value: Any = values
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."
