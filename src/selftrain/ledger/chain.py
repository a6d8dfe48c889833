"""The hash chain: one line per record, each naming the hash of the one before it.

A line is `{"body": ..., "hash": ..., "kind": ..., "prev": ..., "seq": ...}` in canonical JSON. `hash` is the SHA-256 of the canonical JSON of
`{"body", "kind", "prev", "seq"}`. A segment's line also has `files`: the SHA-256 of the file bytes that hold its rows. It stands outside the hash,
because the record is its values and not what a version of a Parquet writer makes of them.

Canonical JSON: keys sorted, no spaces, UTF-8, shortest decimal form of a float that reads back as the same value; a float that is not finite is
`{"$float": "nan"}`, `"inf"` or `"-inf"`. Text with a lone surrogate is escaped as `escape` says.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from selftrain.errors import LedgerError
from selftrain.ledger import storage
from selftrain.ledger.objects import Place

FORMAT = 3
"""Version of everything in the ledger folder; the header carries it."""

NO_HASH = "0" * 64
"""`prev` of the header."""

KINDS = ("header", "segment", "probe", "verdict", "step", "checkpoint", "request", "branch", "fork", "end")

_ESCAPE = "\ufdd0"
_UNSTORABLE = re.compile("[\ud800-\udfff\ufdd0]")
_ESCAPED = re.compile("\ufdd0([0-9a-f]{4})")
_FLOAT = "$float"


def escape(text: str) -> str:
    """Text that UTF-8 can hold: a lone surrogate, and U+FDD0 itself, become U+FDD0 and four hex digits. Everything else, NUL too, stays."""
    return text if text.isascii() else _UNSTORABLE.sub(lambda match: f"{_ESCAPE}{ord(match[0]):04x}", text)


def unescape(text: str) -> str:
    """The inverse of `escape`."""
    return text if _ESCAPE not in text else _ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)


def plain(value: object) -> object:
    """A value as JSON holds it: mappings with text keys, lists, text, numbers, booleans, None. Raises LedgerError for anything else."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {_FLOAT: repr(float(value))}
    if isinstance(value, Mapping):
        if any(not isinstance(key, str) or key == _FLOAT for key in value):
            raise LedgerError(f"a record with the keys {sorted(map(repr, value))}", f"keys must be text other than {_FLOAT}", "rename the key")
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [plain(item) for item in value]
    raise LedgerError(f"{value!r} in a record", f"a {type(value).__name__} is not a JSON value", "give text, numbers, booleans, None, lists or mappings")


def canonical(value: object) -> bytes:
    """Canonical JSON of a value that `plain` returned."""
    return escape(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)).encode()


def decode(data: bytes) -> object:
    """The value behind JSON bytes, escapes and non-finite floats resolved. Raises ValueError."""
    return json.loads(unescape(data.decode()), object_hook=_restore_float)


def _restore_float(value: dict[str, object]) -> object:
    return float(str(value[_FLOAT])) if value.keys() == {_FLOAT} else value


@dataclass(frozen=True, slots=True)
class Line:
    """One record of the chain. seq: 0 for the header, then 1, 2, ... files: file name -> SHA-256 of its bytes, for a segment only."""

    seq: int
    kind: str
    prev: str
    body: Mapping[str, object]
    hash: str
    files: Mapping[str, str] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The line as it stands in the file, newline included."""
        fields = {"seq": self.seq, "kind": self.kind, "prev": self.prev, "body": plain(self.body), "hash": self.hash}
        return canonical(fields | {"files": dict(self.files)} if self.files else fields) + b"\n"


def make_line(seq: int, kind: str, prev: str, body: Mapping[str, object]) -> Line:
    """A record with its hash. Raises LedgerError when the body is not JSON."""
    return Line(seq, kind, prev, body, _hash(seq, kind, prev, body))


def _hash(seq: int, kind: str, prev: str, body: Mapping[str, object]) -> str:
    return hashlib.sha256(canonical({"seq": seq, "kind": kind, "prev": prev, "body": plain(body)})).hexdigest()


def parse_line(raw: bytes, seq: int, prev: str) -> Line:
    """The record in a line that should be number `seq` and follow `prev`. Raises LedgerError that names it when anything does not fit."""
    try:
        value = decode(raw)
    except (ValueError, RecursionError) as error:
        raise _damaged(seq, f"its line is not JSON ({error})") from error
    if not isinstance(value, dict) or value.keys() - {"files"} != {"seq", "kind", "prev", "body", "hash"}:
        raise _damaged(seq, "its line does not have the fields of a record")
    if not isinstance(value["body"], dict) or not isinstance(value.get("files", {}), dict):
        raise _damaged(seq, "its line does not have the fields of a record")
    line = Line(value["seq"], value["kind"], value["prev"], value["body"], value["hash"], value.get("files", {}))
    if line.seq != seq:
        raise _damaged(seq, f"record {line.seq} stands in its place")
    if line.prev != prev:
        raise _damaged(seq, "it does not follow the record before it")
    if line.hash != _hash(line.seq, line.kind, line.prev, line.body):
        raise _damaged(seq, "its content does not have the hash it names")
    if line.encode() != raw:
        raise _damaged(seq, "its line is not the one that was written")
    return line


def _damaged(seq: int, why: str) -> LedgerError:
    return LedgerError(f"record {seq} of the ledger", why, "run `selftrain verify` to see what else is damaged, and go back to a copy of the run folder")


def read_chain(path: Place, seq: int = 0, prev: str = NO_HASH, start: int = 0) -> Iterator[tuple[int, Line]]:
    """(offset, record) for every record of a chain file from byte `start` on, where record `seq` begins. A torn last line is left out.

    Raises LedgerError at the first record that does not fit, StorageError.
    """
    for offset, raw in storage.lines(path, start):
        if not raw.endswith(b"\n"):
            return
        line = parse_line(raw, seq, prev)
        yield offset, line
        seq, prev = seq + 1, line.hash
