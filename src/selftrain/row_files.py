"""Files and pipes -> rows, in flat memory: JSON lines and Parquet; of a trainer's log also CSV, JSON as a whole, as `trainer_state.json` is, and
what it wrote to a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

from selftrain.console_log import console_rows
from selftrain.errors import PromptError
from selftrain.prompts.files import read_rows

Row = Mapping[str, Any]
SEVERAL = 3
ROW_FIELDS = frozenset({"step", "global_step", "_step", "prompt"})
"""fields that tell a row of a log from other JSON that is printed"""
UTF_16 = ("\udcff\udcfe", "\udcfe\udcff")
"""how it begins, each byte of no UTF-8 as Python stands for it"""
UNPACKED = {".gz": "gunzip -c", ".bz2": "bunzip2 -c", ".xz": "xz -dc", ".zst": "zstd -dc"}


def rows_of(path: str, columns: Collection[str]) -> Iterator[Row]:
    """The rows of a file of JSON lines or Parquet, or of standard input for `-`. columns: those of a Parquet file to read."""
    return _parquet_rows(path, columns) if path.endswith((".parquet", ".pq")) else _json_rows(path, None)


def log_rows(path: str, columns: Collection[str], torn: Callable[[], None]) -> Iterator[Row]:
    """The same of a log that a trainer writes, or has written: it may be CSV, one list, one object with a `log_history`, or what was written to a terminal
    (console_log.py); and it may end in the middle of a line, which is left out and told to `torn`.
    """
    suffix = Path(path).suffix.lower()
    if suffix in UNPACKED:
        raise PromptError(path, "it is compressed", f"unpack it on the way: {UNPACKED[suffix]} {path} | selftrain guard -")
    if suffix == ".csv":
        return ({name: value for name, value in row.values.items() if value != ""} for row in read_rows(Path(path)))
    return rows_of(path, columns) if suffix in (".parquet", ".pq") else _json_rows(path, torn)


def _json_rows(path: str, torn: Callable[[], None] | None) -> Iterator[Row]:
    if path == "-":
        if sys.stdin is None:
            raise PromptError("standard input", "it is closed", "pipe rows into it, or name a file")
        yield from _parsed(sys.stdin, "standard input", torn)
        return
    if not Path(path).is_file():
        raise PromptError(
            path, "it is a folder" if Path(path).is_dir() else "there is no such file", "give a file of JSON lines or Parquet, or - for standard input"
        )
    try:
        with open(path, encoding="utf-8-sig", errors="strict" if torn is None else "surrogateescape") as lines:
            yield from _parsed(lines, path, torn)
    except OSError as error:
        raise PromptError(path, f"it cannot be read: {error.strerror or error}", "check the permissions of the file and its folders") from error


def _parsed(lines: Iterable[str], origin: str, torn: Callable[[], None] | None) -> Iterator[Row]:
    """torn: None where rows are JSON lines and nothing else."""
    number, begun, rows, lines = 0, False, 0, iter(lines)
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            text = line.removeprefix("\ufeff") if number == 1 else line
            if number == 1 and text.startswith(UTF_16):
                raise PromptError(f"{origin}, line 1", "it is not UTF-8 text (it begins as UTF-16 does)", "convert it to UTF-8")
            row, wrong = _loaded(text)
            if isinstance(wrong, json.JSONDecodeError) and torn is not None and not begun and wrong.pos >= len(text.rstrip()):
                row, lines = _whole(text, lines)
            if row is None and wrong is not None and torn is not None and begun and text.lstrip().startswith("{"):
                following = next((other for other in lines if other.strip()), None)
                if following is None:
                    torn()
                    return
                lines = chain((following,), lines)
            history = None if torn is None or begun else _history(row)
            if history is not None:
                yield from history
                return
            if not isinstance(row, dict):
                wrong_line = _no_row(f"{origin}, line {number}", wrong)
                others = console_rows(_unlike_rows(chain((text,), lines), wrong_line), torn) if torn is not None and rows <= 1 else iter(())
                if (first := next(others, None)) is None:
                    raise wrong_line from wrong
                yield from chain((first,), others)
                return
            _check_text(text)
            begun = True
            rows += not ROW_FIELDS.isdisjoint(row)
            yield row
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        where = f"{origin}, after line {number - isinstance(error, UnicodeEncodeError)}"
        raise PromptError(where, f"it is not UTF-8 text ({error.reason})", "convert it to UTF-8") from error


def _unlike_rows(lines: Iterable[str], wrong: PromptError) -> Iterator[str]:
    """What a terminal shows. Raises `wrong` where several JSON rows stand among it: then the line that is no JSON is damage, and no row may be lost."""
    rows = 0
    for line in lines:
        rows += line.startswith('{"') and isinstance(row := _loaded(line)[0], dict) and not ROW_FIELDS.isdisjoint(row)
        if rows >= SEVERAL:
            raise wrong
        yield line


def _loaded(text: str) -> tuple[Any, Exception | None]:
    """The JSON of a line, or what is wrong with it."""
    try:
        return json.loads(text), None
    except (ValueError, RecursionError) as error:
        return None, error


def _no_row(place: str, wrong: Exception | None) -> PromptError:
    if wrong is None:
        return PromptError(place, "it is not a JSON object", 'write {"prompt": ..., "completion": ...}')
    return PromptError(place, f"it is not JSON ({str(wrong).partition(';')[0]})", "write one JSON object per line")


def _check_text(text: str) -> None:
    """Raises UnicodeEncodeError for bytes that were no UTF-8: among what was written to a terminal they do not matter, in a row they do."""
    if not text.isascii():
        text.encode("utf-8")


def _whole(text: str, lines: Iterator[str]) -> tuple[Any, Iterator[str]]:
    """The JSON that a first line and all others are together, None where they are none; and the lines behind the first."""
    others = list(lines)
    row, wrong = _loaded(whole := text + "".join(others))
    if wrong is None:
        _check_text(whole)
    return row, iter(others)


def _history(value: Any) -> list[Row] | None:
    """The rows of a log that is one value: a list of objects, or an object with such a list as `log_history`."""
    found = value.get("log_history") if isinstance(value, dict) else value
    return found if isinstance(found, list) and all(isinstance(one, dict) for one in found) else None


def _parquet_rows(path: str, columns: Collection[str]) -> Iterator[Row]:
    """Rows of a Parquet file, a batch at a time."""
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        for batch in file.iter_batches(batch_size=1024, columns=[name for name in file.schema_arrow.names if name in columns]):
            yield from batch.to_pylist()
    except (OSError, pyarrow.ArrowException) as error:
        raise PromptError(path, f"it cannot be read as Parquet ({error})", "check the path and the format") from error
