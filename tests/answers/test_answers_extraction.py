"""Extraction: markers, their order, cut-off completions, offsets."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from selftrain.answers import extract, extract_span, key

SETS = Path(__file__).parents[2] / "benchmarks" / "answers"
MEASURED, HELD_OUT = SETS / "completions.jsonl", SETS / "held_out_completions.jsonl"
SHARED = Path(__file__).parents[3] / "shared" / "cases" / "extraction.jsonl"


def rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("row", rows(MEASURED) + rows(HELD_OUT), ids=lambda row: row["kind"])
def test_measured_completions(row):
    found = extract(row["completion"])
    assert found == row["answer"] or found in row["accept"]


@pytest.mark.skipif(not SHARED.exists(), reason="the shared cases are not here")
def test_shared_cases():
    for row in rows(SHARED):
        found = extract(row["completion"])
        assert found == row["answer"] or found in row["accept"], row


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("\\boxed{1} <answer>2</answer> #### 3\nThe answer is 4. 5", "1"),
        ("<answer>2</answer>\n#### 3\nThe answer is 4. 5", "2"),
        ("#### 3\nThe answer is 4. 5", "3"),
        ("The answer is 4. 5", "4"),
        ("4 and 5", "5"),
    ],
)
def test_the_order_of_kinds(completion, answer):
    assert extract(completion) == answer


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        ("So the town has 12 000 people", "12 000"),
        ("has 12\u00a0000", "12\u00a0000"),
        ("$ 1\\,000$", "1\\,000"),
        ("He needs 3 1/2 cups", "3 1/2"),
        ("so 3\\frac{1}{2}", "3\\frac{1}{2}"),
        ("Das macht 12,5", "12,5"),
        ("so 2^10", "2^10"),
        ("so 2^{10}.", "2^{10}"),
        ("= 1.5 \\times 10^3", "1.5 \\times 10^3"),
        ("at 12:30", "12:30"),
        ("version 1.2.3", "1.2.3"),
        ("The answer is 12 000 people who live in the town of x and in y z", "12 000"),
        ("in 2020 500 people came", "500"),
        ("10 20 300", "300"),
        ("step 1, 200 apples", "200"),
        ("(3,4)", "4"),
        ("(-3,4)", "4"),
        ("max{4,6}", "6"),
        ("1 100\n2 200\n3 300", "300"),
        ("On May 5 250 tickets were sold.", "250"),
        ("In step 3 120 remain", "120"),
        ("Sorted: 100 200 300", "300"),
        ("Out of 12 1/2 are red", "1/2"),
        ("In year 2024 1/2 of them left.", "1/2"),
        ("Day 1:100", "100"),
        ("score 3:2", "2"),
        ("so x^2", "2"),
        ("5-3", "3"),
    ],
)
def test_a_number_in_several_parts_is_one(completion, answer):
    assert extract(completion) == answer


@given(
    st.text(max_size=200),
    st.sampled_from(["", "\\boxed{", "}", "<answer>", "</answer>", "#### ", "The answer is ", "<think>", "</think>", "$", "\\("]),
    st.text(max_size=60),
)
def test_spans_match_for_any_text(before, marker, after):
    completion = before + marker + after
    span = extract_span(completion)
    assert (None if span is None else span.text) == extract(completion)
    if span is not None:
        assert completion[span.start : span.end] == span.text
        assert 0 <= span.start < span.end <= len(completion)


@given(
    st.integers(-(10**12), 10**12),
    st.sampled_from(["\\boxed{%s}", "<answer>%s</answer>", "#### %s", "The answer is %s.", "Die Antwort lautet %s.", "that gives %s"]),
)
def test_a_marked_integer_is_found(n, marker):
    found = extract("First 12 and 7, then:\n" + marker.replace("%s", str(n)))
    assert found is not None
    assert key(found) == str(n)


def test_a_megabyte_takes_milliseconds():
    import time

    for piece in ("The sum is 7. ", "\\boxed{", "{", "<answer>", "#### x\n", "the answer is ", "9", "word "):
        began = time.process_time()
        extract(piece * (1_000_000 // len(piece)))
        assert time.process_time() - began < 0.5, piece
