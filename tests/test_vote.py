"""The vote: order, ties, unread answers, shares."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.answers import key
from selftrain.types import AnswerKey
from selftrain.vote import count

SHARED = Path(__file__).parents[2] / "shared" / "cases" / "vote.jsonl"
KEYS = st.lists(st.none() | st.sampled_from("abcde").map(AnswerKey), max_size=30)


def test_a_worked_example():
    vote = count([AnswerKey("12"), AnswerKey("12"), None, AnswerKey("12")])
    assert vote.winners == ("12",)
    assert vote.share_frac == 0.75
    assert vote.read_share_frac == 1.0
    assert vote.margin_frac == 0.75


@pytest.mark.parametrize("keys", [[], [None], [None] * 5])
def test_nothing_read(keys):
    vote = count(keys)
    assert vote.winners == ()
    assert not vote.is_tie
    assert vote.share_frac == 0.0
    assert vote.read_share_frac is None


def test_a_tie_names_all_tied_keys():
    vote = count([AnswerKey("b"), AnswerKey("a"), None, AnswerKey("c"), AnswerKey("a"), AnswerKey("b")])
    assert vote.is_tie
    assert vote.winners == ("a", "b")
    assert vote.margin_frac == 0.0


@given(KEYS, st.randoms(use_true_random=False))
def test_the_order_does_not_matter(keys, rng):
    assert count(rng.sample(keys, len(keys))) == count(keys)


@given(KEYS)
def test_renaming_does_not_matter(keys):
    renamed = [None if found is None else AnswerKey(f"({ord(found) * 7919 % 101})") for found in keys]
    assert sorted(n for _, n in count(renamed).counts) == sorted(n for _, n in count(keys).counts)
    assert count(renamed).share_frac == count(keys).share_frac
    assert count(renamed).is_tie == count(keys).is_tie


@given(KEYS)
def test_counts_add_up(keys):
    vote = count(keys)
    assert vote.num_votes == len(keys)
    assert sum(n for _, n in vote.counts) == vote.num_read == sum(found is not None for found in keys)


@pytest.mark.skipif(not SHARED.exists(), reason="the shared cases are not here")
def test_shared_cases():
    for line in SHARED.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        keys = [None if answer is None else key(answer) for answer in row["answers"]]
        clusters = [[i for i, found in enumerate(keys) if found == winner] for winner, _ in count(keys).counts]
        vote = count(keys)
        assert sorted(clusters) == sorted(row["clusters"]), row["id"]
        assert sorted([i for i, found in enumerate(keys) if found == winner] for winner in vote.winners) == sorted(row["winners"])
        assert vote.share_frac == row["share_all"]
        assert vote.read_share_frac == row["share_answered"]
        assert vote.is_tie is row["tie"]
