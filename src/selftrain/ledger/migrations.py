"""Older formats of the ledger, read as the present one: migration N turns a table of format N into one of format N + 1.

Bytes and digests are checked in the format in which they were written; nothing on the disk is changed, and nobody writes on in an old format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from selftrain.ledger.chain import FORMAT
from selftrain.ledger.columns import TABLES, Column, arrow_schema, present

if TYPE_CHECKING:
    import pyarrow as pa

Migration = Callable[["pa.Table"], Mapping[str, list[Any]]]
"""(table of format N) -> the values of the columns that format N + 1 has more, by name"""


def columns_of(number: int, name: str) -> Sequence[Column]:
    """The columns of a table in format `number`."""
    later = {column for (added, table), columns in ADDED.items() if added > number and table == name for column in columns}
    return tuple(column for column in TABLES[name] if column.name not in later)


def is_readable(number: object) -> bool:
    return isinstance(number, int) and 1 <= number <= FORMAT


def migrated(number: int, name: str, table: pa.Table) -> pa.Table:
    """A table of format `number` in the present format."""
    for step in range(number, FORMAT):
        if (step, name) in MIGRATIONS:
            table = with_columns(table, present(columns_of(step + 1, name), table.column_names), MIGRATIONS[step, name](table))
    return table


def with_columns(table: pa.Table, columns: Sequence[Column], added: Mapping[str, list[Any]]) -> pa.Table:
    """The table with these columns: the ones it has, and those that are added."""
    import pyarrow as pa

    schema = arrow_schema(columns)
    return pa.Table.from_arrays(
        [pa.array(added[field.name], field.type) if field.name in added else table.column(field.name) for field in schema], schema=schema
    )


def filled(name: str, table: pa.Table) -> pa.Table:
    """A table of the present format with the optional columns that it lacks, null."""
    return with_columns(table, TABLES[name], {column.name: [None] * table.num_rows for column in TABLES[name] if column.name not in table.column_names})


def roles(table: pa.Table) -> Mapping[str, list[Any]]:
    """1 -> 2: groups have a role and say whom they serve. All groups of format 1 vote."""
    return {"role": ["vote"] * table.num_rows, "serves": [None] * table.num_rows}


def weights(table: pa.Table) -> Mapping[str, list[Any]]:
    """2 -> 3: a label has a weight and an offset. Those of format 2 changed no advantage."""
    votes = [role == "vote" for role in table.column("role").to_pylist()]
    return {"label_weight": [1.0 if vote else None for vote in votes], "label_offset": [0.0 if vote else None for vote in votes]}


def values(table: pa.Table) -> Mapping[str, list[Any]]:
    """2 -> 3: a verifier may look, and a label source may give rewards itself. In format 2 none did."""
    return {name: [None] * table.num_rows for name in ADDED[3, "completions"]}


ADDED: Mapping[tuple[int, str], tuple[str, ...]] = {
    (2, "groups"): ("role", "serves"),
    (3, "groups"): ("label_weight", "label_offset"),
    (3, "completions"): ("check_score", "check_note", "label_value", "label_note"),
}
"""(format, table) -> the columns that it was the first to have"""
MIGRATIONS: Mapping[tuple[int, str], Migration] = {(1, "groups"): roles, (2, "groups"): weights, (2, "completions"): values}
