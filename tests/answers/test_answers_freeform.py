"""Clusters of sentences: all pairs agree, in any order of the answers."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.answers import freeform
from selftrain.errors import ConfigError

ANSWERS = ["The capital of France is Paris.", "Paris is the capital of France", "It is Lyon.", None, "The capital of France is not Paris."]


def test_overlap_joins_paraphrases_and_keeps_negations_apart():
    keys = freeform.by_overlap(ANSWERS)
    assert keys[0] == keys[1]
    assert keys[3] is None
    assert len({key for key in keys if key is not None}) == 3


def test_numbers_keep_sentences_apart():
    keys = freeform.by_overlap(["Give 5 mg twice a day.", "Give 5.0 mg twice a day", "Give 50 mg twice a day."])
    assert keys[0] == keys[1] != keys[2]


def test_text_joins_only_what_is_written_alike():
    keys = freeform.by_text(["Paris is big.", "paris  is big", "Paris is large."])
    assert keys[0] == keys[1] != keys[2]


@given(st.lists(st.sampled_from("abcdefg") | st.none(), max_size=12), st.sets(st.tuples(st.sampled_from("abcdefg"), st.sampled_from("abcdefg"))))
def test_any_judge_gives_clusters_whose_pairs_all_agree(letters, agreeing):
    answers = [None if letter is None else f"answer {letter} it is" for letter in letters]

    def same(a, b):
        return (a[7], b[7]) in agreeing

    keys = freeform.cluster(answers, same)
    for a, first in zip(answers, keys, strict=True):
        for b, second in zip(answers, keys, strict=True):
            if a is not None and b is not None and first == second and a != b:
                assert same(a, b)
                assert same(b, a)
    order = list(range(len(answers)))
    random.Random(0).shuffle(order)
    assert freeform.cluster([answers[i] for i in order], same) == tuple(keys[i] for i in order)


def test_clusterings_by_name():
    assert freeform.clustering("overlap") is freeform.by_overlap
    outside = freeform.clustering("selftrain.answers.freeform:by_text")
    assert outside is not freeform.by_text  # a function that is not named by us is wrapped, so that its errors and values are checked
    assert outside(["Paris.", None]) == freeform.by_text(["Paris.", None])
    assert freeform.clustering("exact") is freeform.by_text
    for name in ("nothing", "judge", "no.such.module:f", "selftrain.answers.freeform:nothing", "selftrain.answers.freeform:MAX_ANSWER"):
        with pytest.raises(ConfigError):
            freeform.clustering(name)


def test_the_answer_of_a_completion_in_words():
    assert freeform.freeform_answer("<think>5</think>Some thoughts.\n\nIt is due to pressure.") == "It is due to pressure."
    assert freeform.freeform_answer("Thoughts. The answer is Paris.") == "Paris"
    assert freeform.freeform_answer("<think>It is") is None
    assert freeform.freeform_answer("   ") is None
