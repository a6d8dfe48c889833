"""Evaluations and timings: JSON lines beside the chain, each with a hash of its own. The chain does not cover them, so they cannot change a run's head."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any

from selftrain.errors import LedgerError
from selftrain.ledger import storage
from selftrain.ledger.chain import canonical, decode, plain
from selftrain.ledger.objects import Place


class SideFile:
    """A file of records keyed by (step, name): what is there already is not written again. Raises LedgerError when a line is damaged."""

    def __init__(self, path: Place, *, sync: bool = True) -> None:
        """sync: whether a record is on the disk when `append` returns; without it a power cut may take the newest ones."""
        self._path, self._sync = path, sync
        self._file = storage.append_file(path)
        self._last: dict[tuple[int, str], bytes] = {}
        end = 0
        for raw, record in read_side(path):
            end += len(raw)
            self._last[(record["step"], record["name"])] = raw
        if end != self._file.size:
            self._file.cut(end)

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record unless it is the last one of its key. Raises LedgerError without `step` and `name`, StorageError."""
        if not isinstance(record.get("step"), int) or not isinstance(record.get("name"), str):
            raise LedgerError(f"a record for {self._path.name}", "it needs a step (a number) and a name (a text)", "add them")
        key, data = (record["step"], record["name"]), _encode(record)
        if self._last.get(key) != data:
            self._file.append(data, sync=self._sync)
            self._last[key] = data

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_side(path: Place) -> Iterator[tuple[bytes, dict[str, Any]]]:
    """(line, record) of a side file, in order; a torn last line is left out. Raises LedgerError at the first line that is not as it was written."""
    for number, (_, raw) in enumerate(storage.lines(path), 1):
        if not raw.endswith(b"\n"):
            return
        try:
            record = decode(raw)
        except (ValueError, RecursionError) as error:
            raise _damaged(path, number, f"it is not JSON ({error})") from error
        if not isinstance(record, dict) or not isinstance(record.get("step"), int) or not isinstance(record.get("name"), str):
            raise _damaged(path, number, "it does not have the fields of a record")
        record.pop("hash", None)
        if _encode(record) != raw:
            raise _damaged(path, number, "it is not what was written")
        yield raw, record


def latest(path: Place) -> list[dict[str, Any]]:
    """The last record of each (step, name), by step, then in order of first appearance. Raises LedgerError when a line is damaged."""
    found = {(record["step"], record["name"]): record for _, record in read_side(path)}
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def _encode(record: Mapping[str, Any]) -> bytes:
    value = plain({key: item for key, item in record.items() if key != "hash"})
    checked = {"hash": hashlib.sha256(canonical(value)).hexdigest()}
    return canonical(value | checked if isinstance(value, dict) else checked) + b"\n"


def _damaged(path: Place, number: int, why: str) -> LedgerError:
    return LedgerError(f"line {number} of {path.name}", why, f"go back to a copy of the run folder, or remove that line from {path}")
