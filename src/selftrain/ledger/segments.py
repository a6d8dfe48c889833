"""One segment: the groups of one append as two Parquet files, `000001.groups.parquet` and `000001.completions.parquet`.

Both files carry in their Parquet metadata the format version, the segment's number and the hash of the record before it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from selftrain.errors import LedgerError
from selftrain.ledger.chain import FORMAT, Line
from selftrain.ledger.columns import TABLES, arrow_schema, present
from selftrain.ledger.migrations import columns_of

if TYPE_CHECKING:
    import pyarrow as pa

_SPLIT = ("logprobs", "entropies", "certainties")
_DICTIONARY = {
    "groups": ["role", "policy_version", "label_outcome", "label_source", "label_decided_by", "admission", "message_roles.list.element"],
    "completions": ["finish", "policy_version", "answer_text", "answer_key", "check_note", "label_note", "reward_reason"],
}


def file_name(number: int, table: str) -> str:
    """Name of the file of a table (`groups` or `completions`) of segment `number`, which counts from 1."""
    return f"{number:06d}.{table}.parquet"


def file_names(line: Line) -> list[str]:
    """The files of a segment's record, from its number; none of any other record. `line.files` says what they should hold."""
    return [file_name(int(str(line.body["segment"])), table) for table in TABLES] if line.kind == "segment" else []


def encode(name: str, table: pa.Table, number: int, previous: str) -> bytes:
    """The Parquet file of a table: zstd, one row group. previous: hash of the record before the segment's."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {"selftrain.format": str(FORMAT), "selftrain.segment": str(number), "selftrain.previous": previous}
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata(metadata),
        sink,
        compression="zstd",
        compression_level=1,
        use_dictionary=_DICTIONARY[name],
        use_byte_stream_split=[f"{column}.list.element" for column in _SPLIT if column in table.column_names] or False,
        row_group_size=max(1, table.num_rows),
    )
    return sink.getvalue().to_pybytes()  # type: ignore[no-any-return]


def decode(name: str, data: bytes, number: int, previous: str, written: int = FORMAT) -> pa.Table:
    """The table in a Parquet file, in the format in which it was written. Raises LedgerError when it is not that of its segment and predecessor."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    file = file_name(number, name)
    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(file, f"it is not readable as Parquet ({str(error).splitlines()[0]})") from error
    metadata = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in (table.schema.metadata or {}).items()}
    wanted = {"selftrain.format": str(written), "selftrain.segment": str(number), "selftrain.previous": previous}
    if any(metadata.get(key) != value for key, value in wanted.items()):
        raise damaged(file, "it belongs to another segment or follows another record")
    if not table.schema.remove_metadata().equals(arrow_schema(present(columns_of(written, name), table.column_names))):
        raise damaged(file, "its columns are not those of the format")
    return table


def decode_columns(name: str, data: bytes, number: int, columns: list[str]) -> pa.Table:
    """Some columns of the table in a Parquet file. Raises LedgerError when it is not readable or lacks them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(pa.BufferReader(data)).read(columns=columns, use_threads=False)
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise damaged(file_name(number, name), f"it is not readable as Parquet ({str(error).splitlines()[0]})") from error


def checksum(data: bytes) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def damaged(file: str, why: str) -> LedgerError:
    """The error for a segment file that is not what was recorded."""
    return LedgerError(f"the ledger file {file}", why, "run `selftrain verify` to see what else is damaged, and go back to a copy of the run folder")
