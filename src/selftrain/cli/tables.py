"""Tables of numbers on a terminal that may be too narrow for them."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

WIDE = 10_000
"""characters: wider than any table"""


def number_column(table: Table, name: str, cells: Iterable[str]) -> None:
    """A column as wide as its longest cell: none is cut."""
    table.add_column(name, no_wrap=True, min_width=max(map(len, (name, *cells))))


def fits(console: Console, table: Table) -> bool:
    """Whether the console is wide enough for every number and every word of a table."""
    wide = console.options.update(max_width=WIDE)
    return console.measure(table, options=wide).minimum <= console.width
