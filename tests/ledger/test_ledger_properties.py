"""Any group comes back as it was written, whatever its texts and numbers, and its digest does not depend on the file."""

from __future__ import annotations

import math
import struct
from collections import Counter
from dataclasses import replace

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from samples import groups

from selftrain.errors import LedgerError
from selftrain.ledger import chain, records, segments
from selftrain.ledger.columns import TABLES, arrow_schema, digest, from_table, to_table
from selftrain.types import (
    Admission,
    AnswerKey,
    Answers,
    Completion,
    Finish,
    Group,
    Label,
    Message,
    Outcome,
    PolicyVersion,
    Prompt,
    Rewards,
    Role,
    ScoredGroup,
    Vote,
    VotedGroup,
)

texts = st.text(st.one_of(st.characters(), st.sampled_from("\ufdd0\ud800\udfff\x00\\0d8f{}")), max_size=12)
keys = st.builds(AnswerKey, texts)
floats = st.floats(allow_nan=False)
singles = st.floats(width=32, allow_nan=False)
tokens = st.integers(-(2**31), 2**31 - 1)
versions = st.builds(PolicyVersion, st.integers(0, 9), st.integers(0, 10**6))


@st.composite
def completions(draw: st.DrawFn) -> Completion:
    size = draw(st.integers(0, 4))
    several = {"min_size": size, "max_size": size}
    return Completion(
        text=draw(texts),
        token_ids=tuple(draw(st.lists(tokens, **several))),
        logprobs=tuple(draw(st.lists(singles, **several))),
        token_ends=tuple(draw(st.lists(tokens, **several))),
        entropies=tuple(draw(st.lists(singles, **several))),
        finish=draw(st.sampled_from(Finish)),
        version=draw(versions),
        certainties=tuple(draw(st.lists(singles, **several))) if draw(st.booleans()) else (),
    )


@st.composite
def scored_groups(draw: st.DrawFn, step: int, index: int) -> ScoredGroup:
    size = draw(st.integers(0, 4))

    def each(values: st.SearchStrategy[object]) -> tuple[object, ...]:
        return tuple(draw(st.lists(values, min_size=size, max_size=size)))

    def optional(values: st.SearchStrategy[object]) -> tuple[object, ...]:
        return each(values) if draw(st.booleans()) else ()

    group = Group(
        step,
        index,
        Prompt(draw(texts), tuple(draw(st.lists(st.builds(Message, texts, texts), max_size=2)))),
        tuple(draw(st.lists(tokens, max_size=3))),
        each(completions()),  # type: ignore[arg-type]
    )
    read_keys = each(st.none() | keys)
    counts = Counter(key for key in read_keys if key is not None)
    targets = draw(st.one_of(st.just((draw(keys),) * size), st.just((None,) * size), st.lists(st.none() | keys, max_size=5).map(tuple)))
    return ScoredGroup(
        voted=VotedGroup(group, Answers(each(st.none() | texts), read_keys), Vote(size, size, tuple(counts.items()))),  # type: ignore[arg-type]
        label=Label(draw(st.sampled_from(Outcome)), targets, draw(texts), draw(texts), draw(st.booleans())),
        rewards=Rewards(optional(floats), optional(texts)),  # type: ignore[arg-type]
        kl_penalties=optional(floats),  # type: ignore[arg-type]
        shaped_rewards=optional(floats),  # type: ignore[arg-type]
        advantages=optional(floats),  # type: ignore[arg-type]
        admission=draw(st.sampled_from(Admission)),
        trained=tuple(at for at in range(size) if draw(st.booleans())),
    )


@st.composite
def steps(draw: st.DrawFn) -> list[ScoredGroup]:
    voting = [draw(scored_groups(3, index)) for index in range(draw(st.integers(0, 3)))]
    extras: list[list[VotedGroup]] = [[] for _ in voting]
    for index in range(draw(st.integers(0, 3)) if voting else 0):
        extra = draw(scored_groups(3, len(voting) + index)).voted
        extras[draw(st.integers(0, len(voting) - 1))].append(replace(extra, group=replace(extra.group, role=draw(st.sampled_from([Role.JUDGE, Role.TEACHER])))))
    return [replace(one, voted=replace(one.voted, group=replace(one.voted.group, extras=tuple(served)))) for one, served in zip(voting, extras, strict=True)]


@settings(max_examples=50, deadline=None)
@given(steps())
def test_groups_come_back_through_parquet_with_their_digest(scored: list[ScoredGroup]) -> None:
    tables = records.to_tables(3, scored)
    decoded = {name: segments.decode(name, segments.encode(name, table, 1, "0" * 64), 1, "0" * 64) for name, table in tables.items()}
    assert records.from_tables(**decoded) == scored
    for name, table in tables.items():
        assert digest(name, decoded[name]) == digest(name, table)


@settings(max_examples=25, deadline=None)
@given(steps(), steps())
def test_different_groups_have_different_digests(one: list[ScoredGroup], other: list[ScoredGroup]) -> None:
    digests = [tuple(digest(name, table) for name, table in records.to_tables(3, scored).items()) for scored in (one, other)]
    if repr(one) != repr(other):  # repr tells 0.0 from -0.0
        assert digests[0] != digests[1]


names = texts.filter(lambda text: text != "$float")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=100, deadline=None)
@given(st.dictionaries(names, json_values, max_size=4))
def test_bodies_come_back(body: dict[str, object]) -> None:
    line = chain.make_line(3, "step", "ab" * 32, body)
    raw = line.encode()
    assert raw.count(b"\n") == 1
    assert chain.parse_line(raw, 3, "ab" * 32) == line


def test_floats_that_are_not_finite_come_back() -> None:
    body = chain.parse_line(chain.make_line(0, "step", chain.NO_HASH, {"a": math.inf, "b": [-math.inf, math.nan]}).encode(), 0, chain.NO_HASH).body
    assert repr(body) == "{'a': inf, 'b': [-inf, nan]}"
    with pytest.raises(LedgerError, match=r"keys must be text other than \$float"):
        chain.make_line(0, "step", chain.NO_HASH, {"$float": "1"})
    with pytest.raises(LedgerError, match="a bytes is not a JSON value"):
        chain.make_line(0, "step", chain.NO_HASH, {"a": b"1"})


def test_the_digest_is_the_one_the_format_describes() -> None:
    """The canonical bytes by hand, from docs/ledger.md, for the two sample groups, with and without an optional column."""
    import hashlib

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value.encode())) + value.encode()

    def array(kind: str, values: list[object]) -> bytes:
        valid = bytes(value is not None for value in values)
        if kind == "str":
            parts = [b"" if value is None else str(value).encode() for value in values]
            return valid + b"".join(struct.pack("<I", len(part)) for part in parts) + b"".join(parts)
        if kind.startswith("list<"):
            lists = [() if value is None else value for value in values]
            items = [item for part in lists for item in part]  # type: ignore[attr-defined]
            return valid + b"".join(struct.pack("<I", len(part)) for part in lists) + struct.pack("<Q", len(items)) + array(kind[5:-1], items)  # type: ignore[arg-type]
        code = {"i32": "i", "i64": "q", "f32": "f", "f64": "d", "bool": "B"}[kind]
        return valid + b"".join(struct.pack(f"<{code}", 0 if value is None else value) for value in values)

    plain, first = groups(3), groups(3)[0].voted.group
    done = replace(first.completions[0], certainties=(0.25, 1.5))
    asked = [replace(plain[0], voted=replace(plain[0].voted, group=replace(first, completions=(done, *first.completions[1:])))), *plain[1:]]
    for scored, optional in ((plain, set()), (asked, {"certainties"})):
        for name, table in records.to_tables(3, scored).items():
            columns = [column for column in TABLES[name] if not column.optional or column.name in optional]
            values = from_table(TABLES[name], table)
            data = text(name) + struct.pack("<QQ", table.num_rows, len(columns))
            data += b"".join(text(column.name) + text(column.type) + array(column.type, values[column.name]) for column in columns)
            assert digest(name, table) == hashlib.sha256(data).hexdigest()


def test_the_digest_does_not_depend_on_how_the_file_is_laid_out() -> None:
    import pyarrow.parquet as pq

    for name, table in records.to_tables(3, groups(3)).items():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="none", row_group_size=1, use_dictionary=True, data_page_version="2.0")
        again = pq.ParquetFile(pa.BufferReader(sink.getvalue()))
        chunked = pa.Table.from_batches(again.iter_batches(batch_size=1))
        assert max(column.num_chunks for column in chunked.columns) > 1
        assert digest(name, chunked) == digest(name, table)
        assert digest(name, pa.concat_tables([table, table]).slice(table.num_rows)) == digest(name, table)


def test_a_value_that_does_not_fit_is_named() -> None:
    columns = [column for column in TABLES["completions"] if column.name in ("token_ids", "reward")]
    with pytest.raises(LedgerError, match="the column token_ids of a segment"):
        to_table(columns, {"token_ids": [[2**31]], "reward": [1.0]})
    with pytest.raises(LedgerError, match="the column reward of a segment"):
        to_table(columns, {"token_ids": [[1]], "reward": ["1"]})
    assert to_table(columns, {"token_ids": [], "reward": []}).schema.equals(arrow_schema(columns))
