"""The rows of a query as a table, CSV, JSON or Parquet."""

from __future__ import annotations

import csv
import datetime
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from selftrain.errors import ConfigError, StorageError
from selftrain.query import NAMED, VIEWS, Database
from selftrain.query.database import named_sql

FORMS = {".csv": "csv", ".json": "json", ".parquet": "parquet", ".txt": "table"}
WIDE = 200
MAX_CELL = 120
CONTROL = {code: 0x2400 + code for code in range(32)} | {127: 0x2421, 0x0A: 0x23CE}
"""Control characters are shown as their pictures, a line break as ⏎: a completion must not steer the terminal."""


def sql_of(run: str | None, sql: str | None, named: str | None) -> str:
    """What is asked. Raises ConfigError unless it is a run and exactly one of SQL and a name, and for SQL that is no text."""
    usage = "Usage: selftrain query RUN SQL, or selftrain query RUN --named NAME; `--list` shows what there is."
    if run is None:
        raise ConfigError("selftrain query", "RUN is missing", usage)
    if (sql is None) == (named is None):
        given = f"selftrain query {run}" if sql is None else f"SQL and --named {named}"
        raise ConfigError(given, "it needs exactly one of SQL and --named", usage)
    if named is not None:
        return named_sql(named)
    if sql != "-":
        return str(sql)
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise ConfigError("the query on stdin", f"it is no UTF-8 text ({error.reason} at byte {error.start})", "Write it in UTF-8.") from error


def form_of(form: str | None, target: Path | None) -> str:
    """The form that is named, or that the ending of the file says. Raises ConfigError for Parquet on stdout."""
    found = form or (FORMS.get(target.suffix.lower()) if target else "table")
    if found is None:
        raise ConfigError(f"--output {target}", f"its ending {target.suffix!r} names no form" if target else "", "Give --format table, csv, json or parquet.")
    if found == "parquet" and target is None:
        raise ConfigError("--format parquet", "Parquet is no text for a terminal or a pipe", "Name a file with --output FILE.parquet.")
    return found


def write(database: Database, sql: str, form: str, target: Path | None, max_rows: int) -> None:
    """Ask and write. A file appears when the query has begun to give rows. Raises ConfigError, FailureError, StorageError."""
    if form == "parquet":
        assert target is not None
        write_parquet(database, sql, target)
        return
    columns, batches = database.batches(sql)
    rows = (row for batch in batches for row in batch)
    with opened(target) as stream:
        if form == "table":
            show_table(columns, rows, stream, max_rows)
        elif form == "csv":
            write_csv(columns, rows, stream)
        else:
            write_json(columns, rows, stream)


@contextmanager
def opened(target: Path | None) -> Iterator[IO[str]]:
    """The file to write, or stdout. Half a surrogate pair, which UTF-8 cannot hold, is written as its escape."""
    if target is None:
        yield sys.stdout
        return
    try:
        with target.open("w", encoding="utf-8", errors="backslashreplace", newline="") as stream:
            yield stream
    except OSError as error:
        raise StorageError(f"--output {target}", f"it cannot be written ({error.strerror or error})", "Choose another file.") from error


def write_parquet(database: Database, sql: str, target: Path) -> None:
    """Rows as they come, texts as the ledger stores them."""
    import pyarrow.parquet as pq

    reader = database.reader(sql)
    try:
        with pq.ParquetWriter(str(target), reader.schema, compression="zstd") as writer:
            for batch in reader:
                writer.write_batch(batch)
    except OSError as error:
        raise StorageError(f"--output {target}", f"it cannot be written ({error.strerror or error})", "Choose another file.") from error


def write_csv(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]], stream: IO[str]) -> None:
    """RFC 4180 with a header; null is empty, a list is JSON."""
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        writer.writerow([encodable(compact(value) if isinstance(value, list | dict) else "" if value is None else value) for value in row])


def encodable(value: Any) -> Any:
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) and not value.isascii() else value


def write_json(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]], stream: IO[str]) -> None:
    """One array with an object a row, one line each."""
    stream.write("[")
    for number, row in enumerate(rows):
        stream.write((",\n " if number else "\n ") + compact(dict(zip(columns, row, strict=True))))
    stream.write("\n]\n")


def compact(value: Any) -> str:
    return json.dumps(json_value(value), allow_nan=False)


def json_value(value: Any) -> Any:
    """JSON has no numbers that are not finite and no dates: both become text."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, list):
        return [json_value(item) for item in value]
    if isinstance(value, dict):
        return {str(name): json_value(item) for name, item in value.items()}
    return value if isinstance(value, str | int | float | bool | None) else value.isoformat() if isinstance(value, datetime.date) else str(value)


def show_table(columns: tuple[str, ...], rows: Iterator[tuple[Any, ...]], stream: IO[str], max_rows: int) -> None:
    """The first rows, each in one line as wide as the terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    found: list[tuple[Any, ...]] = []
    left = 0
    for row in rows:
        if len(found) < max_rows:
            found.append(row)
        else:
            left += 1
    for at, name in enumerate(columns):
        numeric = all(isinstance(row[at], int | float | None) for row in found)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True, overflow="ellipsis")
    for row in found:
        table.add_row(*[Text(cell(value)) for value in row])
    console = Console(file=stream) if stream.isatty() else Console(file=stream, width=WIDE, color_system=None)
    console.print(table)
    total = len(found) + left
    words = f"{total:,} row{'' if total == 1 else 's'}"
    console.print(Text(f"{words}, the first {max_rows} shown; --max-rows, or --format csv, json or parquet for all" if left else words, style="dim"))


def cell(value: Any) -> str:
    """A value on one line: floats to six digits, long texts cut."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = ", ".join(map(cell, value)) if isinstance(value, list) else compact(value) if isinstance(value, dict) else str(value)
    text = text.encode("utf-8", "backslashreplace").decode().translate(CONTROL)
    return text if len(text) <= MAX_CELL else f"{text[: MAX_CELL - 1]}…"


def show_list(named: str | None) -> None:
    """The views and the named questions, or the SQL of one of them."""
    if named is not None:
        click.echo(named_sql(named))
        return
    click.echo("Views\n")
    for view in VIEWS.values():
        click.echo(f"  {click.style(view.name, bold=True)}: {view.meaning}")
        for column in view.columns:
            click.echo(f"    {column.name} {column.type.lower()}: {column.meaning}")
        click.echo("")
    click.echo("Named questions\n")
    for query in NAMED.values():
        click.echo(f"  {click.style(query.name, bold=True)}: {query.question}")
