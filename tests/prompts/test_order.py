"""Which prompts a step trains on."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.errors import PromptError
from selftrain.prompts import draw
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet
from tests.prompts.wording import refused


def numbered(count: int) -> PromptSet:
    return PromptSet(tuple(Prompt(str(i), (Message("user", str(i)),)) for i in range(count)), AnswerSheet({}), "numbers")


def ids(prompts: PromptSet, step: int, per_step: int, seeds: Stream) -> list[str]:
    return [prompt.id for prompt in draw(prompts, step, per_step, seeds)]


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
    refused(lambda: draw(numbered(count), 0, 8, Stream(0)), PromptError, f"{count} prompts of numbers", "8 different", "prompts_per_step")
