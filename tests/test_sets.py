"""The sets and the policy of a config: what overlaps, is too long or cannot be used is found before the first sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from selftrain.compose import check_lengths, load_policy, load_sets
from selftrain.config import PolicySection
from selftrain.config_load import load_config
from selftrain.errors import ConfigError, PromptError, UserError
from selftrain.policies.torch.encoding import Encoder, check_format
from selftrain.policies.toy import is_toy
from selftrain.types import Message, Prompt


def refused(kind: type[UserError], words: str, **options: Any) -> None:
    with pytest.raises(kind, match=words):
        load_sets(load_config(overrides={name.replace("__", "."): value for name, value in options.items()}))


def test_a_task_problem_in_the_held_out_file_is_seen_under_any_template(tmp_path: Path) -> None:
    train = load_sets(load_config(overrides={"prompts.task": "add:2"})).train
    path = tmp_path / "held.jsonl"
    path.write_text("".join(json.dumps({"prompt": prompt.text, "answer": 1}) + "\n" for prompt in train.prompts[:4]))
    refused(PromptError, "4 of 4 are training prompts", prompts__task="add:2", evals__file=str(path), prompts__count=5000)


def test_the_other_form_is_left_out_of_training_and_a_small_level_is_used_up() -> None:
    sets = load_sets(load_config(overrides={"prompts.task": "add:1", "evals.task": "add:1:words", "evals.num_problems": 20}))
    assert len(sets.train) == 80


def test_held_out_problems_without_answers(tmp_path: Path) -> None:
    path = tmp_path / "held.jsonl"
    path.write_text('{"prompt": "why?"}\n')
    refused(PromptError, "1 of 1 have no true answer", prompts__task="add:4", evals__file=str(path))


def test_a_column_that_is_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_text("prompt,prompt\na,b\n")
    refused(PromptError, "two columns 'prompt'", prompts__file=str(path))


def test_the_toy_policy_takes_no_source_and_needs_enough_prompts() -> None:
    refused(ConfigError, "knows its own problems only", policy__model="toy", prompts__task="add:4")
    refused(PromptError, "a step needs that many", policy__model="toy", prompts__count=3)
    assert [is_toy(name) for name in ("toy", "toy:weak", "toys/a", "toybox/model")] == [True, True, False, False]


def test_a_prompt_longer_than_the_context(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text(json.dumps({"prompt": "7+" * 300 + "7"}) + "\n")
    config = load_config(overrides={"prompts.file": str(path), "rollout.prompts_per_step": 1})
    with pytest.raises(PromptError, match="has no room for them and a completion"):
        check_lengths(config, load_policy(config), load_sets(config))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"prompt_format": "plain", "plain_template": "x"}, "has no {prompt}"),
        ({"prompt_format": "plain", "system_prompt": "x"}, "has no {system}"),
        ({"chat_template_args": {"tokenize": True}}, "chat_template_args: tokenize"),
    ],
)
def test_a_format_that_cannot_work(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check_format(PolicySection(**options))


@pytest.mark.parametrize(("options", "words"), [({"prompt_format": "plain"}, "has 2 messages"), ({"system_prompt": "x"}, "a system turn of its own")])
def test_turns_that_would_be_lost_or_doubled(options: dict[str, Any], words: str) -> None:
    prompt = Prompt("a", (Message("system", "be brief"), Message("user", "1+1")))
    with pytest.raises(PromptError, match=words):
        Encoder(None, PolicySection(**options)).text_of(prompt)
