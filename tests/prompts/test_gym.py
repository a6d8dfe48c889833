"""Problems of reasoning-gym, made and checked in a child process."""

from __future__ import annotations

import importlib.util

import pytest

from selftrain.config import PromptsSection
from selftrain.errors import MissingExtraError, PromptError
from selftrain.prompts import gym_child, load_prompts, prompt_set_hash
from selftrain.prompts.gym import GymProblems, load_gym
from tests.prompts.wording import refused

installed = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra `gym`")


@pytest.fixture(scope="module")
def sums() -> GymProblems:
    return load_gym("gym:chain_sum:0", count=3, seed=7)


@installed
def test_a_task_by_name_and_level(sums: GymProblems) -> None:
    ids = [prompt.id for prompt in sums.prompts]
    assert all(one.startswith("gym-chain_sum-0/") for one in ids)
    assert len(set(ids)) == 3
    answer = sums.prompts.sheet.answer_of(ids[0])
    assert answer is not None
    assert sums.scores([(ids[0], answer), (ids[0], "nobody"), (ids[1], "")]) == [1.0, 0.0, 0.0]
    with pytest.raises(KeyError):
        sums.scores([("no such prompt", answer)])


@installed
def test_the_level_sets_the_curriculum(sums: GymProblems) -> None:
    """chain_sum adds up to 2 numbers at level 0 and more at level 5."""
    hard = load_gym("gym:chain_sum:5", count=20, seed=7).prompts
    assert max(len(prompt.text) for prompt in sums.prompts) < max(len(prompt.text) for prompt in hard)


@installed
def test_from_the_prompts_section_without_excluded_ones(sums: GymProblems) -> None:
    first = sums.prompts.prompts[0].id
    made = load_prompts(PromptsSection(task="gym:chain_sum:0", count=3, template="boxed"), 7, exclude=frozenset([first]))
    ids = [prompt.id for prompt in made]
    assert ids[:2] == [prompt.id for prompt in sums.prompts][1:]
    assert first not in ids
    assert all(prompt.text.endswith("\\boxed{}.") for prompt in made)
    assert len(made.sheet) == 3


@installed
def test_hash_order_does_not_matter() -> None:
    """word_ladder walks over sets of texts, whose order differs from process to process."""
    first, again = load_gym("gym:word_ladder", count=4, seed=3), load_gym("gym:word_ladder", count=4, seed=3)
    assert prompt_set_hash(first.prompts) == prompt_set_hash(again.prompts)


@installed
@pytest.mark.slow
def test_the_global_generator_does_not_matter() -> None:
    """codeio runs snippets that draw from the global generator. Several tasks come in turn."""
    names = "gym:coin_flip,gym:codeio:0"
    first, again = load_gym(names, count=4, seed=3), load_gym(names, count=4, seed=3)
    assert prompt_set_hash(first.prompts) == prompt_set_hash(again.prompts)
    assert [prompt.id.split("/")[0] for prompt in first.prompts] == ["gym-coin_flip-default", "gym-codeio-0"] * 2


@installed
def test_a_verifier_that_breaks_or_hangs_gives_no_score(sums: GymProblems) -> None:
    """An alarm after a microsecond ends the child at the first check: undecided."""
    one = sums.prompts.prompts[0].id
    assert sums.scores([(one, "1")], limit_s=1e-6) == [None]
    broken = GymProblems(sums.prompts, {one: {**sums.entries[one], "entry": "bm90IGEgcGlja2xl"}})
    assert broken.check(one, "1") is None


@installed
def test_a_name_the_library_has_not() -> None:
    refused(lambda: load_gym("gym:knights:1", 2, 0), PromptError, "no task 'knights'", "nearest names are knight_swap, knights_knaves")


@installed
@pytest.mark.parametrize(
    ("name", "level", "why"),
    [
        ("composite", None, "no task 'composite'"),
        ("knights_knaves", 4, "has levels 0 to 3"),
        ("acre", 1, "no levels for acre"),
        ("caesar_cipher", 2, "refuses what its own curriculum says of level 2: rotation must be in range"),
    ],
)
def test_levels_the_library_has_not(name: str, level: int | None, why: str) -> None:
    with pytest.raises(gym_child.Refused, match=why):
        gym_child._dataset(name, level, seed=0, size=1)


@installed
def test_too_few_distinct_problems() -> None:
    refused(lambda: load_gym("gym:tower_of_hanoi:0", 40, 0), PromptError, "1000 tries gave", "40 were asked for")


@installed
@pytest.mark.parametrize("names", ["gym:", "gym", "gym:a:b", "gym:a:1:2", "gym:a:-1", "gym:chain_sum:", "add:4"])
def test_names_that_cannot_be_read(names: str) -> None:
    refused(lambda: load_gym(names, 2, 0), PromptError, "gym:NAME or gym:NAME:LEVEL")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(lambda: load_gym("gym:chain_sum", 2, 0), MissingExtraError, "pip install 'selftrain[gym]'")
