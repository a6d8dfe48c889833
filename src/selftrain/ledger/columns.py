"""The two tables of a segment, column by column, and the bytes of them that the chain hashes.

The canonical bytes of a table do not depend on Parquet: all numbers little-endian, counts as u64, names and types as u64 length + UTF-8.

    table  = name, number of rows, number of columns, then for each column: name, type, array
    array  = for each entry one byte, 1 where it has a value and 0 where it is null; then
      i32 i64 f32 f64 bool   its entries at their width (bool: one byte), 0 where null
      str                    the byte lengths of its entries as u32, 0 where null; then the bytes, joined
      list<X>                the lengths of its entries as u32, 0 where null; then the array of all items, joined, with their number as u64 before it
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from selftrain.errors import LedgerError
from selftrain.ledger.chain import escape, unescape

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Column:
    """One column: its type as written in the canonical bytes, whether entries may be null, and what it means (docs/ledger.md is made of it).

    optional: a column of lists that a segment in which all of them are empty does not have.
    """

    name: str
    type: str
    meaning: str
    nullable: bool = False
    optional: bool = False


GROUPS = (
    Column("step", "i64", "the step that sampled the group"),
    Column("group_index", "i64", "position of the group in its step, from 0; those that vote come first"),
    Column("role", "str", "what its completions are for: `vote`, an extra sample: `judge`, `teacher`, `view`, `paraphrase`, `correction`; or `probe`"),
    Column("serves", "i64", "`group_index` of the group that an extra sample is for; null for `vote` and `probe`", nullable=True),
    Column("prompt_id", "str", "id of the prompt in its set; of an extra sample, unique among those of its role and step"),
    Column("message_roles", "list<str>", "role of each turn of the prompt"),
    Column("message_contents", "list<str>", "text of each turn of the prompt, beside `message_roles`"),
    Column("prompt_token_ids", "list<i32>", "the tokens the policy was given"),
    Column("policy_version", "str", "`branch:updates` of the policy that sampled; null where the completions differ in it", nullable=True),
    Column("num_votes", "i64", "completions that were counted"),
    Column("num_read", "i64", "of these, the ones with a readable answer"),
    Column("vote_keys", "list<str>", "the answer keys that were voted for, most votes first, then by key"),
    Column("vote_counts", "list<i64>", "votes of each key, beside `vote_keys`"),
    Column("label_outcome", "str", "`decided`, or why there is no label; null but for `vote` and `correction`", nullable=True),
    Column("label_key", "str", "the pseudo-label, where all completions share one", nullable=True),
    Column("label_targets", "list<str>", "the key rewarded in each completion; null where it is `label_key` in all of them", nullable=True),
    Column("label_source", "str", "name of the label source; null but for `vote` and `correction`", nullable=True),
    Column(
        "label_decided_by",
        "str",
        "`vote`, `views`, `teacher`, `average`, `judge`, `entropy` or `certainty` and the policy version, or `reference`; null but for `vote` and `correction`",
        nullable=True,
    ),
    Column("label_uses_truth", "bool", "whether a true answer touched the label"),
    Column("label_weight", "f64", "factor of the group's advantages; null but for `vote` and `correction`", nullable=True),
    Column("label_offset", "f64", "added to each advantage of the group, before the factor; null but for `vote` and `correction`", nullable=True),
    Column("admission", "str", "`admitted`, or why the group does not train; null but for `vote` and `correction`", nullable=True),
)

COMPLETIONS = (
    Column("step", "i64", "the step that sampled the completion"),
    Column("group_index", "i64", "its group"),
    Column("completion_index", "i64", "position in its group, from 0"),
    Column("text", "str", "what the policy generated"),
    Column("token_ids", "list<i32>", "the tokens as they were sampled, the end token included"),
    Column("logprobs", "list<f32>", "log-probability of each token under the distribution sampled from, in nats"),
    Column("entropies", "list<f32>", "entropy of the distribution each token was drawn from, in nats; empty where the sampler (vLLM) gives none"),
    Column(
        "certainties",
        "list<f32>",
        "KL divergence of the uniform distribution from the one each token was drawn from, in nats; only where the label source asks for it (`self_certainty`)",
        optional=True,
    ),
    Column("token_ends", "list<i32>", "offset into `text` (in characters, before escaping) where each token's characters end"),
    Column("finish", "str", "`stop` or `length` (truncated)"),
    Column("policy_version", "str", "`branch:updates` of the policy that sampled it"),
    Column("answer_text", "str", "the final answer as it was read, a judge's `yes` or `no`, a paraphrase's wording; null where none was", nullable=True),
    Column("answer_key", "str", "its canonical form, which votes", nullable=True),
    Column("check_score", "f64", "what a verifier said, 1 is right; null where it gave no score or did not look", nullable=True),
    Column("check_note", "str", "`verified`, `partly_verified`, `refuted`, or why there is no score; null where no verifier looked", nullable=True),
    Column("label_value", "f64", "the reward, where the label source gave it itself; null where the reward rule made it", nullable=True),
    Column("label_note", "str", "why, beside `label_value`", nullable=True),
    Column("reward", "f64", "null where the group is undecided or an extra sample other than `correction`", nullable=True),
    Column("reward_reason", "str", "`match`, `mismatch`, `unread`, `truncated`, or `label_note`; null where there is no reward", nullable=True),
    Column("kl_penalty_nats", "f64", "what was subtracted from the reward for drift from the reference policy; null without", nullable=True),
    Column("shaped_reward", "f64", "the reward the advantages are made of", nullable=True),
    Column("advantage", "f64", "reward minus the group's baseline, as it was used", nullable=True),
    Column("trained", "bool", "whether the update learned from it"),
)

TABLES = {"groups": GROUPS, "completions": COMPLETIONS}

_NUMPY = {"i32": "<i4", "i64": "<i8", "f32": "<f4", "f64": "<f8", "bool": "u1"}
_GROW = {"i32": np.int32, "i64": np.int64, "f32": np.float32}


def arrow_type(name: str) -> Any:
    """The Arrow type of a column type."""
    import pyarrow as pa

    if name.startswith("list<"):
        return pa.list_(pa.field("element", arrow_type(name[5:-1])))
    return {"i32": pa.int32(), "i64": pa.int64(), "f32": pa.float32(), "f64": pa.float64(), "bool": pa.bool_(), "str": pa.string()}[name]


def arrow_schema(columns: Sequence[Column]) -> pa.Schema:
    """The Arrow schema of a table."""
    import pyarrow as pa

    return pa.schema([pa.field(column.name, arrow_type(column.type)) for column in columns])


def present(columns: Sequence[Column], names: Collection[str]) -> list[Column]:
    """The columns without the optional ones that are not among the names."""
    return [column for column in columns if not column.optional or column.name in names]


def to_table(columns: Sequence[Column], values: dict[str, Sequence[Any]]) -> pa.Table:
    """The Arrow table of one sequence of Python values per column. Raises LedgerError when a value does not fit its column."""
    import pyarrow as pa

    arrays = []
    columns = present(columns, [name for name, entries in values.items() if any(entries)])
    for column in columns:
        try:
            arrays.append(_to_array(column.type, values[column.name]))
        except (ValueError, TypeError, OverflowError, pa.ArrowException) as error:
            raise LedgerError(
                f"the column {column.name} of a segment", f"a value is not of type {column.type} ({error})", "repair what made the value"
            ) from error
    return pa.Table.from_arrays(arrays, schema=arrow_schema(columns))


def _to_array(type_name: str, values: Sequence[Any]) -> pa.Array:
    import pyarrow as pa

    if type_name == "str":
        return pa.array([None if text is None else escape(text) for text in values], pa.string())
    if type_name == "list<str>":
        return pa.array([None if texts is None else [None if text is None else escape(text) for text in texts] for texts in values], arrow_type(type_name))
    if not type_name.startswith("list<"):
        return pa.array(values, arrow_type(type_name))
    lengths = np.fromiter(map(len, values), np.int32, len(values))
    offsets = np.zeros(len(values) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    items = np.fromiter(chain.from_iterable(values), _GROW[type_name[5:-1]], int(offsets[-1]))
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(items), type=arrow_type(type_name))


def from_table(columns: Sequence[Column], table: pa.Table) -> dict[str, list[Any]]:
    """The inverse of `to_table`; lists come back as tuples, those of an optional column that is not there empty."""
    there = present(columns, table.column_names)
    missing: dict[str, list[Any]] = {column.name: [()] * table.num_rows for column in columns if column not in there}
    return {column.name: _from_array(column.type, _joined(table, column.name)) for column in there} | missing


def _joined(table: pa.Table, name: str) -> pa.Array:
    import pyarrow as pa

    column = table.column(name)
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _from_array(type_name: str, array: pa.Array) -> list[Any]:
    if type_name == "str":
        return [None if text is None else unescape(text) for text in array.to_pylist()]
    if type_name == "list<str>":
        lists = array.to_pylist()
        return [None if texts is None else tuple(None if text is None else unescape(text) for text in texts) for texts in lists]
    if not type_name.startswith("list<"):
        return list(array.to_pylist())
    offsets = array.offsets.to_numpy().tolist()
    items = array.values.to_numpy().tolist()
    return [tuple(items[start:end]) for start, end in pairwise(offsets)]


def digest(name: str, table: pa.Table, columns: Sequence[Column] | None = None) -> str:
    """SHA-256 of the canonical bytes of a table (`groups` or `completions`), hexadecimal. columns: those of an older format."""
    state = hashlib.sha256()
    columns = present(TABLES[name] if columns is None else columns, table.column_names)
    state.update(_text(name) + _count(table.num_rows) + _count(len(columns)))
    for column in columns:
        state.update(_text(column.name) + _text(column.type))
        _digest_array(state.update, column.type, _joined(table, column.name))
    return state.hexdigest()


def _count(number: int) -> bytes:
    return number.to_bytes(8, "little")


def _text(text: str) -> bytes:
    data = text.encode()
    return _count(len(data)) + data


def _digest_array(update: Callable[[Any], None], type_name: str, array: pa.Array) -> None:
    import pyarrow.compute as pc

    valid = np.ones(len(array), np.uint8) if array.null_count == 0 else pc.is_valid(array).to_numpy(zero_copy_only=False).astype(np.uint8)
    update(valid)
    if type_name == "str" or type_name.startswith("list<"):
        offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4) if len(array) else np.zeros(1, np.int32)
        update(np.where(valid, np.diff(offsets), 0).astype("<u4"))
        if array.null_count:
            array = array.drop_null()
        if type_name == "str":
            update(_string_bytes(array))
        else:
            items = array.flatten()
            update(_count(len(items)))
            _digest_array(update, type_name[5:-1], items)
        return
    if array.null_count:
        array = array.fill_null(False if type_name == "bool" else 0)
    update(np.ascontiguousarray(array.to_numpy(zero_copy_only=False).astype(_NUMPY[type_name], copy=False)))


def _string_bytes(array: pa.Array) -> Any:
    if not len(array):
        return b""
    offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)
    data = array.buffers()[2]
    return b"" if data is None else memoryview(data)[int(offsets[0]) : int(offsets[-1])]
