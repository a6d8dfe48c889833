"""Older formats of the ledger, read as the present one: migration N turns a table of format N into one of format N + 1.

Bytes and digests are checked in the format in which they were written; nothing on the disk is changed, and nobody writes on in an old format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from selftrain.ledger.chain import FORMAT
from selftrain.ledger.columns import GROUPS, TABLES, Column, arrow_schema

if TYPE_CHECKING:
    import pyarrow as pa


def columns_of(number: int, name: str) -> Sequence[Column]:
    """The columns of a table in format `number`."""
    return OLD_TABLES.get((number, name), TABLES[name])


def is_readable(number: object) -> bool:
    return isinstance(number, int) and 1 <= number <= FORMAT


def migrated(number: int, name: str, table: pa.Table) -> pa.Table:
    """A table of format `number` in the present format."""
    for step in range(number, FORMAT):
        if (step, name) in MIGRATIONS:
            table = MIGRATIONS[step, name](table)
    return table


def roles(table: pa.Table) -> pa.Table:
    """1 -> 2: groups have a role and say whom they serve. All groups of format 1 vote."""
    import pyarrow as pa

    added = {"role": ["vote"] * table.num_rows, "serves": [None] * table.num_rows}
    schema = arrow_schema(GROUPS)
    return pa.Table.from_arrays(
        [pa.array(added[field.name], field.type) if field.name in added else table.column(field.name) for field in schema], schema=schema
    )


OLD_TABLES: Mapping[tuple[int, str], Sequence[Column]] = {(1, "groups"): tuple(column for column in GROUPS if column.name not in ("role", "serves"))}
MIGRATIONS: Mapping[tuple[int, str], Callable[[pa.Table], pa.Table]] = {(1, "groups"): roles}
