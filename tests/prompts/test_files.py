"""Prompt files: what is read, and an error of its own for each way in which a file can be wrong."""

from __future__ import annotations

import json
import math
import os
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from selftrain.config import PromptsSection
from selftrain.errors import PromptError
from selftrain.prompts import load_prompts, prompt_set_hash
from selftrain.prompts.rows import answer_text
from selftrain.types import Message, PromptSet
from tests.prompts.wording import refused


def load(path: Path, **options: object) -> PromptSet:
    return load_prompts(PromptsSection(file=str(path), **{"template": "raw", **options}), seed=0)


def jsonl(folder: Path, *lines: str) -> Path:
    path = folder / "questions.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def texts(prompts: PromptSet) -> list[str]:
    return [prompt.text for prompt in prompts]


class TestJsonl:
    def test_prompts_answers_and_ids(self, tmp_path: Path) -> None:
        read = load(jsonl(tmp_path, '{"prompt": "1+1", "answer": 2, "id": "a"}', '{"prompt": "2+2", "answer": "4", "id": 7}', '{"prompt": "3+3"}'))
        assert texts(read) == ["1+1", "2+2", "3+3"]
        assert [prompt.id for prompt in read][:2] == ["a", "7"]
        assert read.sheet.answer_of("a") == "2"
        assert read.sheet.answer_of("7") == "4"
        assert len(read.sheet) == 2
        assert read.prompts[2].id not in read.sheet

    def test_an_id_is_the_hash_of_the_messages_before_the_template(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, '{"prompt": "1+1"}')
        plain, boxed = load(path), load(path, template="boxed")
        assert plain.prompts[0].id == boxed.prompts[0].id == "9ec613346e830b2c"
        assert boxed.prompts[0].text == "1+1 Let's think step by step and output the final answer within \\boxed{}."

    def test_files_are_boxed_unless_told_otherwise(self, tmp_path: Path) -> None:
        assert load(jsonl(tmp_path, '{"prompt": "1+1"}'), template=None).prompts[0].text.endswith("within \\boxed{}.")

    def test_messages(self, tmp_path: Path) -> None:
        turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "1+1", "name": None}]
        read = load(jsonl(tmp_path, json.dumps({"prompt": turns})), template="Q: {prompt}")
        assert read.prompts[0].messages == (Message("system", "Be brief."), Message("user", "Q: 1+1"))

    def test_other_columns_and_nested_ones(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, '{"question": "1+1", "reward_model": {"ground_truth": "2"}, "prompt": "unused"}')
        read = load(path, prompt_field="question", answer_field="reward_model.ground_truth")
        assert texts(read) == ["1+1"]
        assert read.sheet.answer_of(read.prompts[0].id) == "2"

    def test_blank_lines_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "q.JSONL"
        path.write_bytes(b'\xef\xbb\xbf{"prompt": "1"}\r\n{"prompt": "2"}\n\n  \n')
        assert texts(load(path)) == ["1", "2"]

    def test_line_separators_inside_a_text_are_no_line_ends(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, json.dumps({"prompt": "a\u2028b\x85c"}, ensure_ascii=False), "nonsense")
        refused(lambda: load(path), PromptError, "line 2 of")

    def test_count_takes_the_first_rows_and_reads_no_further(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, '{"prompt": "1"}', '{"prompt": "2"}', "not read")
        assert texts(load(path, count=2)) == ["1", "2"]

    def test_other_answers_give_the_same_prompts(self, tmp_path: Path) -> None:
        """Law 1: whatever the answers are, ids, messages and hash stay."""
        one, other = (load(jsonl(tmp_path, f'{{"prompt": "1+1", "answer": {answer}}}')) for answer in ("2", '[{"x": null}]'))
        assert one.prompts == other.prompts
        assert prompt_set_hash(one) == prompt_set_hash(other)
        assert one.sheet != other.sheet

    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=1, unique=True))
    @settings(max_examples=50, deadline=None)
    def test_any_text_comes_back_as_it_was(self, tmp_path_factory: pytest.TempPathFactory, prompts: list[str]) -> None:
        path = jsonl(tmp_path_factory.mktemp("any"), *(json.dumps({"prompt": text}) for text in prompts))
        assert texts(load(path)) == prompts


class TestBadJsonl:
    """One error each; the message names the line."""

    @pytest.mark.parametrize(
        ("line", "words"),
        [
            ("{prompt: 1}", ["line 2 of", "not JSON"]),
            ("[" * 100_000, ["line 2 of", "not JSON"]),
            ('["1+1"]', ["line 2 of", "JSON list"]),
            ("null", ["line 2 of", "JSON null"]),
            ("3.5", ["line 2 of", "JSON number"]),
            ('"text"', ["line 2 of", "JSON text"]),
            ("true", ["line 2 of", "JSON truth value"]),
            ('{"question": "1+1", "answer": "2"}', ["line 2 of", "no column 'prompt'", "'question', 'answer'", "prompts.prompt_field", "held-out"]),
            ("{}", ["no column 'prompt'; its columns are none"]),
            ('{"prompt": null}', ["line 2 of", "'prompt' is empty"]),
            ('{"prompt": ""}', ["line 2 of", "is empty"]),
            ('{"prompt": " \\n"}', ["line 2 of", "is empty"]),
            ('{"prompt": 12}', ["line 2 of", "its prompt is 12", "{role, content}"]),
            ('{"prompt": {"role": "user", "content": "x"}}', ["line 2 of", "its prompt is {'role'"]),
            ('{"prompt": "\\ud83d"}', ["line 2 of", "half a character ('\\ud83d')"]),
            ('{"prompt": "x", "id": ""}', ["line 2 of", "its id is ''"]),
            ('{"prompt": "x", "id": true}', ["line 2 of", "its id is True"]),
            ('{"prompt": "x", "id": [1]}', ["line 2 of", "its id is [1]"]),
            ('{"prompt": []}', ["line 2 of", "list without messages"]),
            ('{"prompt": ["x"]}', ["line 2 of", "message 1 of its prompt is 'x'"]),
            ('{"prompt": [{"role": "user"}]}', ["line 2 of", "message 1"]),
            ('{"prompt": [{"role": "user", "content": 3}]}', ["line 2 of", "message 1"]),
            ('{"prompt": [{"role": "human", "content": "x"}]}', ["line 2 of", "'human'", "system, user, assistant"]),
            ('{"prompt": [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}]}', ["message 2", "system turn"]),
            ('{"prompt": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}', ["line 2 of", "assistant", "last message"]),
            ('{"prompt": [{"role": "system", "content": "x"}]}', ["line 2 of", "turn of the system"]),
            ('{"prompt": "first"}', ["questions.jsonl, line 2", "line 1 has the same prompt"]),
            ('{"prompt": "other", "id": "a"}', ["questions.jsonl, line 2", "line 1 has the id 'a'"]),
        ],
    )
    def test_line(self, tmp_path: Path, line: str, words: list[str]) -> None:
        path = jsonl(tmp_path, '{"prompt": "first", "id": "a"}', line)
        refused(lambda: load(path), PromptError, *words)

    def test_same_prompt_as_text_and_as_message(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, '{"prompt": "x"}', "", '{"prompt": [{"role": "user", "content": "x"}]}')
        refused(lambda: load(path), PromptError, "line 3", "line 1 has the same prompt")

    def test_not_utf8(self, tmp_path: Path) -> None:
        path = tmp_path / "latin.jsonl"
        path.write_bytes(b'{"prompt": "ok"}\n{"prompt": "stra\xdfe"}\n')
        refused(lambda: load(path), PromptError, "line 2 of", "byte 33 (0xdf) is not UTF-8")
        assert path.read_bytes()[33] == 0xDF

    def test_utf16(self, tmp_path: Path) -> None:
        path = tmp_path / "wide.jsonl"
        path.write_text('{"prompt": "x"}', encoding="utf-16")
        refused(lambda: load(path), PromptError, "line 1 of", "byte 0 (0xff)")

    def test_missing(self, tmp_path: Path) -> None:
        refused(lambda: load(tmp_path / "none.jsonl"), PromptError, "none.jsonl", "no such file")

    def test_folder(self, tmp_path: Path) -> None:
        (tmp_path / "folder.jsonl").mkdir()
        refused(lambda: load(tmp_path / "folder.jsonl"), PromptError, "folder.jsonl", "it is a folder")

    def test_unreadable(self, tmp_path: Path) -> None:
        refused(lambda: load(tmp_path / ("x" * 300 + ".jsonl")), PromptError, "cannot be read: File name too long")

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_no_permission(self, tmp_path: Path) -> None:
        path = jsonl(tmp_path, '{"prompt": "x"}')
        path.chmod(0)
        refused(lambda: load(path), PromptError, "cannot be read: Permission denied")

    @pytest.mark.parametrize("name", ["q.txt", "q", "q.jsonl.gz"])
    def test_unknown_suffix(self, tmp_path: Path, name: str) -> None:
        refused(lambda: load(tmp_path / name), PromptError, name, ".jsonl, .csv, .parquet")

    @pytest.mark.parametrize("content", ["", "\n\n"])
    def test_empty(self, tmp_path: Path, content: str) -> None:
        refused(lambda: load(jsonl(tmp_path, content)), PromptError, "it has no prompts")

    def test_count_larger_than_the_file(self, tmp_path: Path) -> None:
        refused(lambda: load(jsonl(tmp_path, '{"prompt": "x"}'), count=2), PromptError, "prompts.count = 2", "has 1 prompts")


class TestCsv:
    def test_quotes_line_breaks_and_a_byte_order_mark(self, tmp_path: Path) -> None:
        path = tmp_path / "q.csv"
        path.write_bytes('\ufeffprompt,answer,id\r\n"two\nlines, ""quoted""",7,a\r\n\r\nplain,,b\r\n'.encode())
        read = load(path)
        assert texts(read) == ['two\nlines, "quoted"', "plain"]
        assert read.sheet.answer_of("a") == "7"
        assert "b" not in read.sheet

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            ('prompt\n"a\nb"\n\n"c",d\n', ["line 5 of", "2 columns and the header has 1"]),
            ("prompt,answer\nx\n", ["line 2 of", "1 columns and the header has 2"]),
            ('prompt\nx\n"never closed\n', ["line 3 of", "not CSV"]),
            ('prompt\n"a"b\n', ["line 2 of", "not CSV"]),
            ("question\n1+1\n", ["line 2 of", "no column 'prompt'; its columns are 'question'"]),
            ('prompt,answer\n"",1\n', ["line 2 of", "is empty"]),
            ('prompt\n"a\nb"\n"a\nb"\n', ["line 4", "line 2 has the same prompt"]),
            ("prompt\n", ["no prompts"]),
            ("", ["no prompts"]),
        ],
    )
    def test_errors(self, tmp_path: Path, content: str, words: list[str]) -> None:
        path = tmp_path / "q.csv"
        path.write_text(content, encoding="utf-8", newline="")
        refused(lambda: load(path), PromptError, *words)


class TestParquet:
    def test_texts_messages_and_answers(self, tmp_path: Path) -> None:
        path = tmp_path / "q.parquet"
        rows = [{"prompt": [{"role": "user", "content": f"{i}+1"}], "answer": i + 1} for i in range(1500)]
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
        read = load(path)
        assert texts(read)[1499] == "1499+1"
        assert read.sheet.answer_of(read.prompts[1499].id) == "1500"

    def test_row_number_in_errors(self, tmp_path: Path) -> None:
        path = tmp_path / "q.parquet"
        pyarrow.parquet.write_table(pyarrow.table({"prompt": ["a", None]}), path)
        refused(lambda: load(path), PromptError, "row 2 of", "is empty")

    @pytest.mark.parametrize("content", [b"", b"PAR1 this is not Parquet PAR1"])
    def test_not_parquet(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "q.parquet"
        path.write_bytes(content)
        refused(lambda: load(path), PromptError, "q.parquet", "it is not Parquet")


@pytest.mark.parametrize(
    ("given_answer", "text"),
    [
        (72, "72"),
        ("72", "72"),
        (" 72\n", "72"),
        (0.5, "0.5"),
        (Decimal("0.50"), "0.50"),
        (True, "true"),
        ([1, "ä"], '[1, "ä"]'),
        (None, ""),
        (math.nan, ""),
        ("  ", ""),
        ("48/2 = <<48/2=24>>24\n48+24 = 72\n#### 72", "72"),
        ("it has #### in it", "it has #### in it"),
    ],
)
def test_answer_text(given_answer: object, text: str) -> None:
    assert answer_text(given_answer) == text
