"""Which pairs a judge is asked, what its replies mean, and the clusters that follow."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.answers import judge

RAIN = ["It rains a lot.", "Much rain falls.", None, "it rains a lot", "It snows."]


def test_answers_with_one_text_are_merged_first_and_the_most_frequent_come_first() -> None:
    assert judge.ranked(RAIN) == ["It rains a lot.", "It snows.", "Much rain falls."]
    assert judge.pairs(RAIN, 9) == [("It rains a lot.", "It snows."), ("It rains a lot.", "Much rain falls."), ("It snows.", "Much rain falls.")]
    assert judge.pairs(RAIN, 2) == judge.pairs(RAIN, 9)[:2]
    assert judge.pairs([None, "so it is", "So it is"], 9) == []


def test_a_yes_is_asked_again_the_other_way_round_and_nothing_else_is() -> None:
    first, second, third = judge.pairs(RAIN, 9)
    assert judge.open_pairs(RAIN, {}, 9) == [first, second, third]
    forwards: dict[judge.Pair, bool | None] = {first: False, second: True, third: None}
    assert judge.open_pairs(RAIN, forwards, 9) == [second[::-1]]
    assert judge.open_pairs(RAIN, forwards | {second[::-1]: False}, 9) == []


def test_one_cluster_needs_a_yes_in_both_directions() -> None:
    first, second, third = judge.pairs(RAIN, 9)
    one_way: dict[judge.Pair, bool | None] = {first: False, second: True, third: False, second[::-1]: False}
    apart = judge.by_verdicts(RAIN, one_way)
    assert (apart[0], apart[2]) == (apart[3], None)
    assert len(set(apart)) == 4
    together = judge.by_verdicts(RAIN, one_way | {second[::-1]: True})
    assert together[0] == together[1] == together[3] != together[4]


def test_a_pair_that_was_not_judged_is_different() -> None:
    answers = ["a b", "c d", "e f"]
    everything = {pair: True for a, b in combinations(answers, 2) for pair in ((a, b), (b, a))}
    assert len(set(judge.by_verdicts(answers, everything))) == 1
    assert len(set(judge.by_verdicts(answers, {pair: yes for pair, yes in everything.items() if "e f" not in pair}))) == 2
    assert len(set(judge.by_verdicts(answers, {}))) == 3


@given(
    st.lists(st.sampled_from("abcdefg") | st.none(), max_size=12),
    st.sets(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg"))),
    st.integers(1, 25),
)
def test_whatever_the_judge_says_all_pairs_of_a_cluster_agree(letters: list[str | None], agreeing: set[tuple[str, str]], max_pairs: int) -> None:
    answers = [None if letter is None else f"it is {letter}" for letter in letters]
    verdicts: dict[judge.Pair, bool | None] = {}
    asked = 0
    while wanted := judge.open_pairs(answers, verdicts, max_pairs):
        asked += len(wanted)
        verdicts |= {(a, b): (a[-1], b[-1]) in agreeing for a, b in wanted}
    assert asked <= 2 * max_pairs
    keys = judge.by_verdicts(answers, verdicts)
    for (a, one), (b, other) in combinations(zip(answers, keys, strict=True), 2):
        if a is not None and b is not None and a != b and one == other:
            assert verdicts[a, b]
            assert verdicts[b, a]


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("Yes.", True),
        ("<think>no</think> yes", True),
        ("No, it is not", False),
        ("ja", True),
        ("**Nein**", False),
        ("perhaps", None),
        ("", None),
        ("<think>yes, it seems", None),
    ],
)
def test_verdicts(reply: str, verdict: bool | None) -> None:
    assert judge.read_verdict(reply) is verdict


def test_the_question_holds_everything_a_judge_needs() -> None:
    assert judge.judge_prompt("q", "a", "b").startswith("Question: q\n\nAnswer 1: a\n\nAnswer 2: b\n\n")
