"""Votes of files and pipes."""

import io
import json

import pyarrow
import pyarrow.parquet
import pytest

from selftrain.errors import PromptError
from selftrain.vote_stream import Overview, explain, votes_of, votes_of_rows

ROWS = [
    {"prompt": "a", "completion": "\\boxed{0.5}"},
    {"prompt": "a", "completion": "The answer is 1/2."},
    {"prompt": "a", "completion": "I see 3"},
    {"prompt": "b", "completion": "5"},
    {"prompt": "b", "completion": "6"},
    {"prompt": "c", "completion": "no idea"},
    {"prompt": "c", "completion": "\\boxed{1"},
]


def test_json_lines_of_single_completions(tmp_path):
    path = tmp_path / "completions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    found = list(votes_of(str(path)))
    assert [group.prompt for group in found] == ["a", "b", "c"]
    assert found[0].vote.counts == (("1/2", 2), ("3", 1))
    assert found[1].vote.is_tie
    assert found[2].num_unread == 2
    assert found[0].surface_forms() == {"1/2": {"0.5": 1, "1/2": 1}, "3": {"3": 1}}


def test_whole_groups_and_other_field_names():
    rows = [{"id": 7, "responses": ["1", "1.0"]}, {"id": 7, "responses": ["2"]}, {"question": ["x"], "texts": []}]
    found = list(votes_of_rows(rows, "rows"))
    assert [group.prompt for group in found] == ["7", "7", '["x"]']
    assert found[0].vote.counts == (("1", 2),)
    assert found[2].vote.num_votes == 0


def test_parquet_gives_the_same_votes(tmp_path):
    path = tmp_path / "completions.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    assert list(votes_of(str(path))) == list(votes_of_rows(ROWS, "rows"))


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(json.dumps(row) + "\n" for row in ROWS)))
    assert list(votes_of("-")) == list(votes_of_rows(ROWS, "rows"))


def test_the_overview_keeps_what_is_worth_a_look():
    overview = Overview(limit=2)
    rows = [{"prompt": str(n), "completions": ["1"] * (n + 2) + ["2"]} for n in range(6)]
    for group in votes_of_rows([*ROWS, *rows], "rows"):
        overview.add(group)
    assert (overview.num_groups, overview.num_ties, overview.num_empty, overview.num_unread) == (9, 1, 1, 2)
    assert [group.prompt for group in overview.closest] == ["a", "0"]
    assert overview.num_again == 0


def test_prompts_whose_rows_do_not_follow_each_other_are_counted():
    overview = Overview()
    for group in votes_of_rows([*ROWS, *ROWS[:2], {"prompt": "c", "completion": "5"}], "rows"):
        overview.add(group)
    assert (overview.num_groups, overview.num_again) == (5, 2)
    assert [group.prompt for group in overview.ties] == ["b"]
    assert [group.prompt for group in overview.least_read] == ["c"]


def test_every_completion_is_explained():
    lines = explain(next(votes_of_rows(ROWS, "rows")))
    assert [line.key for line in lines] == ["1/2", "1/2", "3"]
    assert {line.why for line in lines[:2]} == {"both are the number 1/2", "written alike"}
    unread = explain(list(votes_of_rows(ROWS, "rows"))[2])
    assert unread[0].kind == "unread"
    assert unread[0].text is None


@pytest.mark.parametrize(
    "line",
    [
        "not json",
        "[1]",
        '{"prompt": "a"}',
        '{"completion": "a"}',
        '{"prompt": "a", "completion": 5}',
        '{"prompt": "a", "completions": ["x", null]}',
        "[" * 100_000,
    ],
)
def test_what_cannot_be_read_is_said(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(PromptError, match="1"):
        list(votes_of(str(path)))


def test_missing_and_damaged_files(tmp_path):
    with pytest.raises(PromptError):
        list(votes_of(str(tmp_path / "nothing.jsonl")))
    damaged = tmp_path / "x.parquet"
    damaged.write_text("no")
    with pytest.raises(PromptError):
        list(votes_of(str(damaged)))
