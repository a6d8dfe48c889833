"""Which prompts a step trains on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.errors import PromptError
from selftrain.prompts import Stratum, draw
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet
from tests.prompts.wording import refused


def numbered(count: int) -> PromptSet:
    return PromptSet(tuple(Prompt(str(i), (Message("user", str(i)),)) for i in range(count)), AnswerSheet({}), "numbers")


def whole(prompts: PromptSet, per_step: int) -> Stratum:
    return Stratum(prompts.prompts, per_step, f"prompts of {prompts.origin}")


def ids(prompts: PromptSet, step: int, per_step: int, seeds: Stream) -> list[str]:
    return [prompt.id for prompt in draw([whole(prompts, per_step)], step, seeds)]


def test_an_epoch_has_every_prompt_once_and_leaves_the_rest_out() -> None:
    prompts, seeds = numbered(10), Stream(3)
    for epoch in range(5):
        seen = [i for step in range(3 * epoch, 3 * epoch + 3) for i in ids(prompts, step, 3, seeds)]
        assert len(seen) == len(set(seen)) == 9


def test_epochs_are_shuffled_afresh_and_leave_different_ones_out() -> None:
    prompts, seeds = numbered(10), Stream(3)
    epochs = [tuple(i for step in range(3 * e, 3 * e + 3) for i in ids(prompts, step, 3, seeds)) for e in range(20)]
    assert len(set(epochs)) == 20
    assert len({next(iter({str(i) for i in range(10)} - set(epoch))) for epoch in epochs}) > 5


def test_every_order_is_about_as_likely() -> None:
    firsts = [ids(numbered(4), 0, 1, Stream(seed))[0] for seed in range(2000)]
    assert all(430 < firsts.count(str(i)) < 570 for i in range(4))


def test_golden_order() -> None:
    """A change here changes every recorded run: it is a decision."""
    assert [ids(numbered(6), step, 2, Stream(0)) for step in range(4)] == GOLDEN


GOLDEN = [["0", "4"], ["2", "1"], ["3", "5"], ["5", "4"]]


@given(st.integers(1, 40), st.data())
def test_pure_and_free_of_repeats(count: int, data: st.DataObject) -> None:
    per_step = data.draw(st.integers(1, count))
    step = data.draw(st.integers(0, 1000))
    seeds = Stream(data.draw(st.integers(0, 99)))
    drawn = ids(numbered(count), step, per_step, seeds)
    assert len(drawn) == len(set(drawn)) == per_step
    assert drawn == ids(numbered(count), step, per_step, seeds.at(stream="other", step=9, prompt_id="x", index=4))


def test_a_branch_draws_anew() -> None:
    prompts = numbered(30)
    assert ids(prompts, 0, 10, Stream(0)) != ids(prompts, 0, 10, Stream(0, branch=1))


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few(count: int) -> None:
    refused(lambda: draw([whole(numbered(count), 8)], 0, Stream(0)), PromptError, f"{count} prompts of numbers", "8 different", "prompts_per_step")


def strata(*sizes: tuple[int, int]) -> list[Stratum]:
    """(prompts, of which a step takes) of each; the ids of the first are a0, a1, ..., of the second b0, ..."""
    return [
        Stratum(tuple(Prompt(f"{name}{i}", (Message("user", f"{name}{i}"),)) for i in range(count)), per_step, "prompts", name)
        for name, (count, per_step) in zip("abc", sizes, strict=False)
    ]


def test_every_stratum_has_epochs_of_its_own() -> None:
    """4 of 8 prompts are from the 10 first ones: those are gone through once in 2.5 steps, so with 2 left out in 2, and the 100 others once in 25."""
    parts, seeds = strata((10, 4), (100, 4)), Stream(3)
    steps = [[prompt.id for prompt in draw(parts, step, seeds)] for step in range(25)]
    for at in range(0, 24, 2):
        few = [i for step in steps[at : at + 2] for i in step if i[0] == "a"]
        assert len(few) == len(set(few)) == 8
    assert len({i for step in steps for i in step if i[0] == "b"}) == 100
    assert len({i for step in steps for i in step if i[0] == "a"}) == 10


def test_the_place_in_a_step_does_not_follow_the_stratum() -> None:
    """Else the first minibatch of each step would be the first stratum."""
    firsts = [draw(strata((50, 8), (50, 8)), step, Stream(1))[0].id[0] for step in range(400)]
    assert 160 < firsts.count("a") < 240


def test_one_stratum_is_drawn_like_no_strata_and_the_others_do_not_change_it() -> None:
    parts, seeds = strata((20, 3), (30, 2), (9, 1)), Stream(5)
    for step in range(30):
        drawn = {prompt.id for prompt in draw(parts, step, seeds)}
        assert drawn == {prompt.id for part in parts for prompt in draw([part], step, seeds)}
        assert drawn == {prompt.id for prompt in draw(parts, step, seeds.at(stream="other", step=9))}


def test_too_few_of_a_stratum() -> None:
    refused(lambda: draw(strata((3, 4), (9, 1)), 0, Stream(0)), PromptError, "3 prompts", "4 different")
