"""`selftrain vote` as a filter: rows in, votes out, a table for a person."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from selftrain.config import UpdateSection
from selftrain.judge_stream import GROUPS_AT_ONCE, PAIRS_AT_ONCE, Judge
from selftrain.policies.base import SampleRequest, SamplingParams
from selftrain.policies.toy import ToyPolicy
from selftrain.seeds import Stream
from selftrain.types import Group
from selftrain.vote_stream import RawGroup
from tests.cli.conftest import Selftrain, assert_refused

ROWS = [
    {"prompt_id": "a", "completion": "so #### 1/2"},
    {"prompt_id": "a", "completion": "#### 0.5"},
    {"prompt_id": "a", "completion": "#### 7"},
    {"prompt_id": "b", "completion": "#### 3"},
    {"prompt_id": "b", "completion": "#### 4"},
    {"prompt_id": "c", "completion": "I do not know"},
]


def write(path: Path, rows: list[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def votes(text: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in text.splitlines()]


def test_votes_in_the_order_of_the_prompts(command: Selftrain, tmp_path: Path) -> None:
    called = command("vote", write(tmp_path / "c.jsonl", list(ROWS)))
    assert called.status == 0, called.err
    a, b, c = votes(called.out)
    assert (a["prompt"], a["outcome"], a["share_frac"], a["num_votes"], a["num_read"]) == ("a", "decided", 2 / 3, 3, 3)
    assert a["answer"] in ("1/2", "0.5")
    assert (b["outcome"], b["answer"], b["key"]) == ("tie", None, None)
    assert (c["outcome"], c["num_read"], c["counts"]) == ("no_answer", 0, [])
    assert called.err.splitlines()[0] == "3 prompts, 6 completions: 1 tie, 1 without any answer, 1 completion unread"
    assert [line for line in called.err.splitlines() if line.endswith(":")] == ["closest calls:", "ties:", "least read:"]


def test_one_prompt_is_no_prompts(command: Selftrain, tmp_path: Path) -> None:
    called = command("vote", write(tmp_path / "c.jsonl", [{"prompt": "a", "completions": ["#### 1"]}]))
    assert called.err.splitlines()[0] == "1 prompt, 1 completion: 0 ties, 0 without any answer, 0 completions unread"


def test_lists_of_completions(command: Selftrain, tmp_path: Path) -> None:
    called = command("vote", write(tmp_path / "c.jsonl", [{"question": 7, "completions": ["#### 1", "#### 1", "#### 2"]}]), "--quiet")
    (only,) = votes(called.out)
    assert (only["prompt"], only["answer"], only["margin_frac"]) == ("7", "1", 1 / 3)
    assert called.err == ""


def test_bounds_and_a_table_in_a_file(command: Selftrain, tmp_path: Path) -> None:
    called = command("vote", write(tmp_path / "c.jsonl", list(ROWS)), "--min-share-frac", "0.9", "--table", "t.txt")
    assert [vote["outcome"] for vote in votes(called.out)] == ["below_min_share", "tie", "no_answer"]
    assert called.err == ""
    assert (tmp_path / "t.txt").read_text().startswith("3 prompts, 6 completions")


def test_parquet_gives_the_same_votes(command: Selftrain, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    write(tmp_path / "c.jsonl", list(ROWS))
    assert command("vote", "c.parquet").out == command("vote", "c.jsonl").out


def test_explain_says_which_ways_of_writing_are_one(command: Selftrain, tmp_path: Path) -> None:
    called = command("vote", write(tmp_path / "c.jsonl", list(ROWS)), "--explain", "a")
    lines = called.out.splitlines()
    assert lines[0].startswith("completion 0: answer '1/2', key '")
    assert "2 of 3 votes, written '1/2' x 1, '0.5' x 1" in lines[3]
    assert_refused(command("vote", "c.jsonl", "--explain", "z"), 2, "--explain z", "no such prompt")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{\n", ["c.jsonl, line 1", "it is not JSON"]),
        ("[1]\n", ["line 1", "it is not a JSON object"]),
        ('{"prompt_id": "a"}\n', ["row 1", "completions (completion, text"]),
        ('{"completion": "1"}\n', ["row 1", "a prompt (prompt"]),
        ('{"prompt_id": "a", "completion": 5}\n', ["row 1", "not a text"]),
        ("\n", ["c.jsonl", "there is no completion in it"]),
        ('{"prompt": "a", "response": "b", "responses": ["b"]}\n', ["row 1", "it has response and responses", "Give one of the two"]),
        ('{"prompt": "a", "completions": "abc"}\n', ["row 1", "its list of completions is a str", "Give a list of texts"]),
        ('{"prompt": "a", "completion": null}\n', ["row 1", "its completion is null", "Give the text of the completion"]),
    ],
)
def test_bad_rows(command: Selftrain, tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "c.jsonl").write_text(text)
    assert_refused(command("vote", "c.jsonl", "--quiet"), 2, *words)


def test_bad_files(command: Selftrain, tmp_path: Path) -> None:
    assert_refused(command("vote", "none.jsonl"), 2, "none.jsonl", "there is no such file")
    (tmp_path / "bad.parquet").write_text("x" * 100)
    assert_refused(command("vote", "bad.parquet"), 2, "bad.parquet", "it cannot be read")


def rows_of(prompt: str, count: int) -> str:
    return "".join(json.dumps({"id": f"{prompt}{i}", "completion": f"#### {i}"}) + "\n" for i in range(count))


def test_as_a_filter_votes_leave_at_once_and_a_closed_pipe_is_no_error() -> None:
    command = [sys.executable, "-m", "selftrain", "vote", "--quiet"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(rows_of("p", 100))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["prompt"] == "p0"
        process.stdout.close()
        with suppress(BrokenPipeError):
            process.stdin.write(rows_of("q", 100))
            process.stdin.close()
        assert process.wait(timeout=30) == 141
        assert process.stderr.read() == ""


def test_free_form_answers_are_clustered_where_asked(command: Selftrain, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "completion": text} for text in ("Interest rates will rise.", "The interest rates will rise", "Rates fall.")]
    called = command("vote", write(tmp_path / "c.jsonl", rows), "--clustering", "overlap", "--quiet")
    assert json.loads(called.out)["share_frac"] == 2 / 3
    assert_refused(command("vote", "c.jsonl", "--clustering", "overlp"), 2, "overlp", "there is no such name", "Did you mean overlap")


def test_text_that_is_not_utf8_is_named(command: Selftrain, tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(b'{"prompt": "q", "completion": "#### 1"}\n{"prompt": "q", "completion": "\xff"}\n')
    assert_refused(command("vote", "c.jsonl"), 2, "c.jsonl", "not UTF-8")


def test_half_characters_are_written_as_json_escapes(command: Selftrain, tmp_path: Path) -> None:
    write(tmp_path / "c.jsonl", [{"prompt": "\ud800", "completions": ["#### 1", "#### 2"]}])
    called = command("vote", "c.jsonl", "--table", "t.txt")
    assert called.status == 0, called.err
    assert r'"prompt": "\ud800"' in called.out
    assert r"\ud800" in (tmp_path / "t.txt").read_text("utf-8")


def test_a_table_that_cannot_be_written_is_said_before_the_work(command: Selftrain, tmp_path: Path) -> None:
    write(tmp_path / "c.jsonl", list(ROWS))
    assert_refused(command("vote", "c.jsonl", "--table", "nope/x"), 2, "--table nope/x", "there is no folder nope", "Make the folder")


def test_a_byte_order_mark_is_no_text(command: Selftrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = json.dumps({"prompt": "a", "completion": "#### 1"}) + "\n"
    (tmp_path / "c.jsonl").write_text(text, "utf-8-sig")
    assert votes(command("vote", "c.jsonl", "--quiet").out)[0]["answer"] == "1"
    monkeypatch.setattr("sys.stdin", io.StringIO("\ufeff" + text))
    assert votes(command("vote", "--quiet").out)[0]["answer"] == "1"


SENTENCES = [
    {"prompt": "toy-3", "completions": ["#### 1", "#### 3", "#### 3", "#### 2", "hm"]},
    {"question": "toy-4", "id": "b", "completion": "#### 4"},
    {"question": "toy-4", "id": "b", "completion": "#### 6"},
]


def test_a_model_judges_which_answers_say_the_same(command: Selftrain, tmp_path: Path) -> None:
    """The toy says that two even or two odd digits are the same."""
    called = command("vote", write(tmp_path / "c.jsonl", list(SENTENCES)), "--clustering", "judge", "--judge-model", "toy")
    first, second = votes(called.out)
    assert (first["key"], first["counts"]) == ("3", [["3", 3], ["'hm'", 1], ["2", 1]])
    assert (second["prompt"], second["outcome"], second["share_frac"]) == ("b", "decided", 1.0)
    assert called.err.splitlines()[-1] == (
        "judge: 7 pairs of different answers, 0 of them beyond --judge.max-pairs and not judged; "
        "0 replies without yes or no, 0 questions too long for the model"
    )


def test_pairs_beyond_the_bound_are_different(command: Selftrain, tmp_path: Path) -> None:
    rows = write(tmp_path / "c.jsonl", list(SENTENCES))
    called = command("vote", rows, "--clustering", "judge", "--judge-model", "toy", "--judge.max-pairs", "1")
    assert [len(vote["counts"]) for vote in votes(called.out)] == [4, 1]  # type: ignore[arg-type]
    assert "7 pairs of different answers, 5 of them beyond" in called.err
    explained = command("vote", rows, "--clustering", "judge", "--judge-model", "toy", "--explain", "b").out.splitlines()
    assert explained[0] == "completion 0: answer '4', key '4' (number): the same as '6' by clustering judge"


def test_many_groups_are_judged_together_in_flat_memory() -> None:
    """Never more than PAIRS_AT_ONCE pairs or GROUPS_AT_ONCE groups are drawn from the stream ahead of the votes, and the votes are those of one at a time."""
    taken = 0

    def groups() -> Iterator[RawGroup]:
        nonlocal taken
        for number in range(3000):
            taken += 1
            yield RawGroup(f"g{number}", f"toy-{number}", tuple(f"#### {(number + i * i) % 8}" for i in range(number % 7)))

    calls: list[int] = []

    class Counting(ToyPolicy):
        def sample(self, requests: Sequence[SampleRequest], params: SamplingParams, seeds: Stream) -> list[Group]:
            calls.append(len(requests))
            return super().sample(requests, params, seeds)

    judge = Judge(Counting("toy", UpdateSection()), SamplingParams(4, 0.0), 32)
    given = 0
    for vote in judge.votes(groups()):
        given += 1
        assert taken - given <= GROUPS_AT_ONCE + 1
        assert len(vote.vote.counts) <= 2
    assert given == 3000
    assert max(calls) <= PAIRS_AT_ONCE
    assert sum(calls) / len(calls) > 100


def test_a_judge_that_is_missing_or_not_wanted(command: Selftrain, tmp_path: Path) -> None:
    rows = write(tmp_path / "c.jsonl", list(SENTENCES))
    assert_refused(command("vote", rows, "--clustering", "judge"), 2, "--clustering judge", "no model is named that could judge")
    assert_refused(command("vote", rows, "--judge-model", "toy"), 2, "--judge-model", "--clustering is exact")
    assert_refused(command("vote", rows, "--judge.max-pairs", "3", "--policy.device", "cuda"), 2, "--judge.max-pairs, --policy.device", "--clustering is exact")
    assert_refused(command("vote", rows, "--clustering", "judge", "--judge-model", "./nothing"), 2, "./nothing", "no such model folder")
    assert_refused(command("vote", rows, "--clustering", "judge", "--judge-model", "embedded:nothing"), 2, "embedded model 'nothing'", "default, weak")
    assert_refused(command("vote", rows, "--clustering", "judge", "--judge-model", "toy", "--judge.max-pairs", "0"), 2, "judge.max_pairs = ", "greater than")


def test_a_question_that_is_too_long_for_the_judge_makes_its_pair_different(command: Selftrain, tmp_path: Path) -> None:
    rows = write(tmp_path / "c.jsonl", [{"prompt": "5+7", "completions": ["a" * 600, "b"]}, {"prompt": "5+7", "completions": ["12", "12.0"]}])
    called = command("vote", rows, "--clustering", "judge", "--judge-model", "embedded:default", "--judge.max-new-tokens", "2")
    assert [len(vote["counts"]) for vote in votes(called.out)] == [2, 1]  # type: ignore[arg-type]
    assert called.err.splitlines()[-1].endswith("0 replies without yes or no, 1 question too long for the model")
