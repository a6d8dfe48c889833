"""Reads the record of a run, finished or being written; opens only segments that the chain names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from selftrain.errors import LedgerError
from selftrain.ledger import records, segments, storage
from selftrain.ledger.chain import FORMAT, NO_HASH, Line, parse_line, read_chain
from selftrain.ledger.columns import TABLES, arrow_schema, digest, from_table
from selftrain.ledger.layout import chain_path, read_run_json, segments_folder
from selftrain.ledger.migrations import columns_of, filled, migrated
from selftrain.ledger.objects import ObjectPath, Place, place
from selftrain.ledger.records import BranchRecord, CheckpointRecord, ForkRecord, RequestRecord, StepRecord, lineage
from selftrain.ledger.sidefiles import latest
from selftrain.types import ScoredGroup, Verdict, VotedGroup

if TYPE_CHECKING:
    import pyarrow.dataset as ds


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a record stands in the chain file. step: None for records that belong to none. branch: how many rollbacks stand before it."""

    seq: int
    kind: str
    step: int | None
    prev: str
    hash: str
    offset: int
    size: int
    branch: int = 0


class Ledger:
    """A run's record as it was when `read` was called, or `advance` last. It holds one small entry per record; everything else is read when asked for.

    After a rollback some steps are there twice, on two branches. Without more said, what is asked for is the history of the newest branch;
    `rolled_back=True` gives what was left behind as well, in the order in which it was written.
    """

    def __init__(self, folder: Place, run: Mapping[str, Any], entries: list[Entry]) -> None:
        self.folder = folder
        self.header: Mapping[str, Any] = run["header"]
        self.environment: Mapping[str, Any] = run["environment"]
        self.format: int = run["format"]
        self.entries = entries
        self._branches: list[BranchRecord] = []

    def advance(self) -> list[Line]:
        """Read on: the records that were written since, which have entries from now on. A torn last line is left out.

        Raises LedgerError when what follows does not fit, which a fork does too: then read the record anew. StorageError.
        """
        last = self.entries[-1] if self.entries else None
        seq, prev, start = (last.seq + 1, last.hash, last.offset + last.size) if last else (0, NO_HASH, 0)
        if last and last.hash.encode() not in storage.read_at(chain_path(self.folder), last.offset, last.size):
            raise LedgerError(f"record {last.seq} of the ledger", "another record stands in its place: the run was forked", "read the record anew")
        found = []
        for offset, line in read_chain(chain_path(self.folder), seq, prev, start):
            if line.kind == "branch":
                self._branches.append(records.branch_from(line.body))
            step = line.body.get("step")
            self.entries.append(
                Entry(line.seq, line.kind, step if isinstance(step, int) else None, line.prev, line.hash, offset, len(line.encode()), len(self._branches))
            )
            found.append(line)
        return found

    @property
    def branches(self) -> tuple[BranchRecord, ...]:
        """The rollbacks, in order."""
        return tuple(self._branches)

    @property
    def lineage(self) -> dict[int, tuple[int, int | None]]:
        """The history of the newest branch, as `records.lineage` gives it."""
        return lineage(self._branches, len(self._branches))

    def counts(self, branch: int, step: int) -> bool:
        """Whether a step of a branch belongs to the history of the newest one."""
        first, end = self.lineage.get(branch, (0, 0))
        return first <= step and (end is None or step < end)

    @property
    def head(self) -> str:
        """Hash of the last record."""
        return self.entries[-1].hash if self.entries else NO_HASH

    @property
    def is_writable(self) -> bool:
        """Whether it has the format that this version writes."""
        return self.format == FORMAT

    @property
    def finished(self) -> bool:
        """Whether the run has an end."""
        return self.end_reason is not None

    @property
    def end_reason(self) -> str | None:
        """Why the run ended; None while it has not."""
        if not self.entries or self.entries[-1].kind != "end":
            return None
        return str(self.line(self.entries[-1]).body["reason"])

    def line(self, entry: Entry) -> Line:
        """The record of an entry."""
        return parse_line(storage.read_at(chain_path(self.folder), entry.offset, entry.size), entry.seq, entry.prev)

    def lines(self, kind: str | None = None) -> Iterator[Line]:
        """The records of a kind, or all, in order, of all branches."""
        return (self.line(entry) for entry in self.entries if kind in (None, entry.kind))

    def _history(self, kind: str, rolled_back: bool) -> Iterator[Entry]:
        """Entries of a kind that have a step; a checkpoint comes after the steps it names, so it belongs to the last of them."""
        earlier = int(kind == "checkpoint")
        return (
            entry
            for entry in self.entries
            if entry.kind == kind and entry.step is not None and (rolled_back or self.counts(entry.branch, entry.step - earlier))
        )

    def steps(self, rolled_back: bool = False) -> Iterator[StepRecord]:
        """The recorded steps, in order."""
        return (records.step_from(line.body, line.hash) for line in map(self.line, self._history("step", rolled_back)))

    def verdicts(self, rolled_back: bool = False) -> Iterator[Verdict]:
        """The guard's verdicts, in order."""
        return (records.verdict_from(line.body) for line in map(self.line, self._history("verdict", rolled_back)))

    def requests(self) -> Iterator[RequestRecord]:
        """What somebody outside asked for, in order."""
        return (records.request_from(line.body) for line in self.lines("request"))

    def checkpoints(self, rolled_back: bool = False) -> Iterator[CheckpointRecord]:
        """The checkpoints that were made, in order; some may be pruned since."""
        for line in map(self.line, self._history("checkpoint", rolled_back)):
            body: Mapping[str, Any] = line.body
            yield CheckpointRecord(body["step"], body["name"], body["weights_hash"], line.hash)

    def forks(self) -> Iterator[ForkRecord]:
        """Where a replay differed and the old record was given up."""
        for line in self.lines("fork"):
            body: Mapping[str, Any] = line.body
            yield ForkRecord(body["abandoned_head"], body["num_records"], line.hash)

    def group_steps(self) -> list[int]:
        """The steps that have groups, in order, each once."""
        return [step for _, step in self.group_keys()]

    def group_keys(self, rolled_back: bool = False) -> list[tuple[int, int]]:
        """(branch, step) of the steps that have groups, in order, each once."""
        return list(dict.fromkeys((entry.branch, entry.step) for entry in self._history("segment", rolled_back) if entry.step is not None))

    def groups(self, step: int, branch: int | None = None) -> list[ScoredGroup]:
        """The groups that voted in a step, as they were appended, with their extra samples; none for a step that has none.

        branch: None for the one that counts.

        Raises LedgerError when a segment is damaged.
        """
        return [group for tables in self._tables(step, branch) for group in records.from_tables(**tables)]

    def probed(self, step: int, branch: int | None = None) -> list[VotedGroup]:
        """The groups of the probe of a step, as they were appended; none for a step that has none. Otherwise as `groups`."""
        return [group for tables in self._tables(step, branch) for group in records.probes_from_tables(**tables)]

    def _tables(self, step: int, branch: int | None) -> Iterator[dict[str, Any]]:
        for entry in self.entries:
            if entry.kind == "segment" and entry.step == step and (self.counts(entry.branch, step) if branch is None else entry.branch == branch):
                yield read_segment(segments_folder(self.folder), self.line(entry), self.format)

    def rows(self, entry: Entry, table: str, columns: Collection[str]) -> dict[str, list[Any]]:
        """Some columns of a segment's `groups` or `completions`, read alone and not checked against the chain: for views that must be quick.

        Raises LedgerError when the file is missing or no such table.
        """
        number = int(str(self.line(entry).body["segment"]))
        data = storage.read_bytes(segments_folder(self.folder) / segments.file_name(number, table))
        if data is None:
            raise segments.damaged(segments.file_name(number, table), "it is missing")
        chosen = [column for column in TABLES[table] if column.name in columns]
        if self.is_writable:
            return from_table(chosen, segments.decode_columns(table, data, number, [column.name for column in chosen]))
        older = segments.decode_columns(table, data, number, [column.name for column in columns_of(self.format, table)])
        return from_table(chosen, migrated(self.format, table, older))

    @property
    def is_being_written(self) -> bool | None:
        """Whether a process of this machine writes it now; None where that cannot be seen."""
        return storage.is_locked(self.folder / "ledger" / "lock")

    def evals(self, rolled_back: bool = False) -> list[dict[str, Any]]:
        """The evaluations, the last of each (step, name), in order of steps; those of given-up records are left out."""
        return [record for record, _, counts in self.placed_evals() if rolled_back or counts]

    def placed_evals(self) -> list[tuple[dict[str, Any], int, bool]]:
        """Each evaluation with its branch and whether it belongs to the history of the newest one, in the order of `evals`.

        An evaluation comes after the steps it names, so it belongs to the last of them.
        """
        branches = {entry.hash: entry.branch for entry in self.entries}
        known = [(record, branches[record["head"]]) for record in latest(self.folder / "evals.jsonl") if record["head"] in branches]
        return [(record, branch, record["step"] == 0 or self.counts(branch, record["step"] - 1)) for record, branch in known]

    def dataset(self, table: str) -> ds.Dataset:
        """The rows of a table (`groups` or `completions`) of the chained segments as an Arrow dataset, texts escaped, of the history of the newest branch.

        No bytes are checked yet, but for records of an older format, which are read and brought to the present one. Raises LedgerError then, and when a file
        is missing.
        """
        import pyarrow.dataset as ds

        lines = [self.line(entry) for entry in self._history("segment", rolled_back=False)]
        if not self.is_writable:
            tables = [read_segment(segments_folder(self.folder), line, self.format)[table] for line in lines]
            return ds.dataset([filled(table, ours) for ours in tables], schema=arrow_schema(TABLES[table]))
        files: list[Place] = [segments_folder(self.folder) / segments.file_name(int(str(line.body["segment"])), table) for line in lines]
        store = None
        if isinstance(self.folder, ObjectPath):
            from pyarrow.fs import FSSpecHandler, PyFileSystem

            store = PyFileSystem(FSSpecHandler(self.folder.fs))
        paths = [file.path if isinstance(file, ObjectPath) else str(file) for file in files]
        try:
            return ds.dataset(paths, schema=arrow_schema(TABLES[table]), format="parquet", filesystem=store)
        except FileNotFoundError:
            self.check_segments()
            raise

    def check_segments(self) -> None:
        """Raises LedgerError for the first segment of the history of the newest branch whose files are not what was recorded."""
        for entry in self._history("segment", rolled_back=False):
            read_segment(segments_folder(self.folder), self.line(entry), self.format)

    def timings(self) -> list[dict[str, Any]]:
        """The timings, the last of each (step, name), in order of steps."""
        return latest(self.folder / "timings.jsonl")


def read(folder: str | Place) -> Ledger:
    """The record of the run in a folder. A torn last line, which a killed writer may leave, is left out.

    Raises RunFolderError when there is no run, LedgerError when the chain is damaged (a damaged segment shows when it is read), StorageError.
    """
    ledger = open_record(place(folder))
    ledger.advance()
    return ledger


def open_record(folder: Place) -> Ledger:
    """The record with nothing of the chain read yet: `advance` reads it and gives its lines. Raises RunFolderError when there is no run, LedgerError."""
    return Ledger(folder, read_run_json(folder), [])


def read_segment(folder: Place, line: Line, written: int) -> dict[str, Any]:
    """The tables of a segment's record, checked against it in the format in which they were `written`, then brought to the present one.

    Raises LedgerError when a file is missing or is not what was recorded.
    """
    body: Mapping[str, Any] = line.body
    if sorted(line.files) != sorted(segments.file_names(line)):
        raise segments.damaged(segments.file_name(body["segment"], "groups"), "its record names other files")
    tables = {}
    for name in TABLES:
        file = segments.file_name(body["segment"], name)
        data = storage.read_bytes(folder / file)
        if data is None:
            raise segments.damaged(file, "it is missing")
        if segments.checksum(data) != line.files.get(file):
            raise segments.damaged(file, "its bytes are not those that were written")
        table = segments.decode(name, data, body["segment"], line.prev, written)
        if digest(name, table, columns_of(written, name)) != body[name]["sha256"] or table.num_rows != body[name]["rows"]:
            raise segments.damaged(file, "its rows are not those that were recorded")
        tables[name] = migrated(written, name, table)
    return tables
