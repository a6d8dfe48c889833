"""Files of prompts: JSONL, CSV and Parquet -> rows."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path

from selftrain.errors import PromptError
from selftrain.prompts.rows import Row


def read_rows(path: Path) -> Iterator[Row]:
    """The rows of a file, by its suffix; read as they are asked for. PromptError when the file cannot be read or a row is no row."""
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise PromptError(str(path), f"its suffix {path.suffix!r} says no known format", f"give a file that ends in {', '.join(READERS)}")
    try:
        if path.is_dir():
            raise PromptError(str(path), "it is a folder", "name one file in it")
        yield from reader(path)
    except FileNotFoundError as error:
        raise PromptError(str(path), "there is no such file", "check the path; it counts from the folder the command runs in") from error
    except OSError as error:
        raise PromptError(str(path), f"it cannot be read: {error.strerror or error}", "check the permissions of the file and its folders") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines of a UTF-8 text with their numbers from 1; a byte order mark is dropped."""
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise PromptError(
                    f"line {number} of {path}", f"byte {offset + error.start} (0x{line[error.start]:02x}) is not UTF-8", "save the file as UTF-8"
                ) from error
            offset += len(line)
            yield number, text.removeprefix("\ufeff") if number == 1 else text


def _jsonl(path: Path) -> Iterator[Row]:
    for number, line in _lines(path):
        if not line.strip():
            continue
        given = f"line {number} of {path}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise PromptError(given, f"it is not JSON: {error}", 'write one object a line, for example {"prompt": "1+1"}') from error
        if not isinstance(values, dict):
            raise PromptError(given, f"it is a JSON {_kind(values)}, not an object", 'write one object a line, for example {"prompt": "1+1"}')
        yield Row(f"line {number}", values)


def _csv(path: Path) -> Iterator[Row]:
    reader = csv.reader((text for _, text in _lines(path)), strict=True)
    header: list[str] | None = None
    end = 0
    try:
        for cells in reader:
            start, end = end + 1, reader.line_num
            if not cells:
                continue
            if header is None:
                header = cells
                twice = [name for place, name in enumerate(cells) if name and name in cells[:place]]
                if twice:
                    raise PromptError(f"line {start} of {path}", f"its header has two columns {twice[0]!r}", "rename or remove one of them")
                continue
            if len(cells) != len(header):
                why = f"it has {len(cells)} columns and the header has {len(header)}"
                raise PromptError(f"line {start} of {path}", why, "put texts with commas in double quotes")
            yield Row(f"line {start}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        do = "put texts with commas, quotes or line breaks in double quotes, and a quote inside them twice"
        raise PromptError(f"line {end + 1} of {path}", f"it is not CSV: {error}", do) from error


def _parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        with path.open("rb") as file:
            number = 0
            for batch in pyarrow.parquet.ParquetFile(file).iter_batches(batch_size=1024):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"row {number}", values)
    except pyarrow.ArrowException as error:
        raise PromptError(str(path), f"it is not Parquet: {str(error).splitlines()[0]}", "write it again, or give JSONL") from error


READERS: dict[str, Callable[[Path], Iterator[Row]]] = {".jsonl": _jsonl, ".csv": _csv, ".parquet": _parquet}


def _kind(value: object) -> str:
    return {list: "list", str: "text", int: "number", float: "number", bool: "truth value"}.get(type(value), "null")
