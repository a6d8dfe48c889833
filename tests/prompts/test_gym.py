"""Problems of reasoning-gym, made and checked in a child process."""

from __future__ import annotations

import importlib.util
from io import StringIO

import pytest

from selftrain.config import PromptsSection
from selftrain.errors import MissingExtraError, PromptError
from selftrain.prompts import check_disjoint, gym_child, ids_of_forms, load_prompts, prompt_set_hash
from selftrain.prompts.gym import GymProblems, load_gym
from tests.prompts.wording import refused

installed = pytest.mark.skipif(importlib.util.find_spec("reasoning_gym") is None, reason="needs the extra `gym`")


NAMES = "gym:chain_sum:0,gym:chain_sum:5,gym:word_ladder"


@pytest.fixture(scope="module")
def made() -> GymProblems:
    return load_gym(NAMES, count=8, seed=7)


@installed
def test_equal_parts_in_turn(made: GymProblems) -> None:
    ids = [prompt.id for prompt in made.prompts]
    turn = ["gym-chain_sum-0", "gym-chain_sum-5", "gym-word_ladder-default"]
    assert [one.split("/")[0] for one in ids] == [*turn, *turn, *turn[:2]]
    assert len(set(ids)) == 8
    assert all(one in made.prompts.sheet for one in ids)


@installed
def test_the_level_sets_the_curriculum(made: GymProblems) -> None:
    """chain_sum adds up to 2 numbers at level 0 and more at level 5."""
    easy, hard = ([prompt.text.count(" ") for prompt in made.prompts if f"chain_sum-{level}/" in prompt.id] for level in (0, 5))
    assert max(easy) < max(hard)


@installed
def test_once_more_without_an_excluded_one(made: GymProblems) -> None:
    """The child fixes the hash seed: word_ladder walks over sets of texts, whose order otherwise differs from process to process."""
    ids = [prompt.id for prompt in made.prompts]
    again = load_prompts(PromptsSection(task=NAMES, count=8, template="boxed"), 7, exclude=frozenset(ids[:1]))
    assert all(prompt.text.endswith("\\boxed{}.") for prompt in again)
    new = [prompt.id for prompt in again]
    assert new[1::3] == ids[1::3]
    assert new[2::3] == ids[2::3]
    assert new[0::3][:2] == ids[0::3][1:]
    assert ids[0] not in new


@installed
def test_a_problem_of_an_easier_level_is_not_made_again() -> None:
    """The words of at most 3 letters are among those of at most 5: neither twice in one set nor beside an excluded one, `abe` nor `Abe`."""
    held_out = load_gym("gym:spell_backward:0,gym:spell_backward:1", count=1200, seed=1).prompts
    train = load_gym("gym:spell_backward:1", count=3000, seed=1, exclude=ids_of_forms(held_out)).prompts
    assert len({prompt.text for prompt in held_out} | {prompt.text for prompt in train}) == 4200
    check_disjoint(train, held_out)


@installed
def test_scores(made: GymProblems) -> None:
    """1 and 0 by the task's verifier; a verifier that breaks decides nothing."""
    one, two = (prompt.id for prompt in made.prompts.prompts[:2])
    answer = made.prompts.sheet.answer_of(one)
    assert answer is not None
    broken = GymProblems(made.prompts, {**made.entries, two: {**made.entries[two], "entry": "bm90IGEgcGlja2xl"}})
    assert broken.scores([(one, answer), (two, "1"), (one, "nobody"), (one, "")]) == [1.0, None, 0.0, 0.0]
    with pytest.raises(KeyError):
        made.scores([("no such prompt", answer)])


@installed
def test_a_verifier_that_hangs_decides_nothing(made: GymProblems) -> None:
    """An alarm after a microsecond ends the child at the check."""
    assert made.check(made.prompts.prompts[0].id, "1", limit_s=1e-6) is None


@installed
@pytest.mark.slow
def test_the_global_generator_does_not_matter() -> None:
    """codeio runs snippets that draw from the global generator."""
    first, again = (load_gym("gym:codeio:0", count=4, seed=3) for _ in range(2))
    assert prompt_set_hash(first.prompts) == prompt_set_hash(again.prompts)


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
        gym_child.make_dataset(name, level, seed=0, size=1)


@installed
def test_too_few_distinct_problems() -> None:
    request = {"orders": [{"task": "tower_of_hanoi", "level": 0, "count": 40, "seed": 1}], "exclude": []}
    with pytest.raises(gym_child.Refused, match="1000 tries at tower_of_hanoi gave 6 distinct problems, 40 were asked for"):
        gym_child._make(request, StringIO())


@installed
@pytest.mark.parametrize("names", ["gym:", "gym", "gym:a:b", "gym:a:1:2", "gym:a:-1", "gym:chain_sum:", "add:4"])
def test_names_that_cannot_be_read(names: str) -> None:
    refused(lambda: load_gym(names, 2, 0), PromptError, "gym:NAME or gym:NAME:LEVEL")


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    refused(lambda: load_gym("gym:chain_sum", 2, 0), MissingExtraError, "pip install 'selftrain[gym]'")
