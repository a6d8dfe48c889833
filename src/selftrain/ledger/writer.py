"""Writes the record of a run as things happen; nothing else writes into `ledger/`.

Every append is on the disk when it returns, but for timings, which nothing depends on. A killed process loses at most the append in flight; `resume` then
replays what came after the last checkpoint and compares each record with the one that is there.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from types import TracebackType
from typing import Any, Self

from selftrain.errors import LedgerError, RunFolderError, StorageError
from selftrain.ledger import records, segments, storage
from selftrain.ledger.chain import FORMAT, NO_HASH, Line, canonical, make_line, plain, read_chain
from selftrain.ledger.columns import digest
from selftrain.ledger.layout import abandoned_folder, chain_path, read_run_json, run_json, segments_folder
from selftrain.ledger.objects import Place
from selftrain.ledger.records import BranchRecord, RequestRecord
from selftrain.ledger.sidefiles import SideFile
from selftrain.types import ScoredGroup, StepMetrics, Verdict, VotedGroup

ADDED_LATER = frozenset({"vote/share_speed_frac", "vote/margin_speed_frac", "probe/reward_per_nat"})
"""metrics of a step that records of earlier versions lack"""


class LedgerWriter:
    """The one writer of a run. Use `create` or `resume`; close it, or use it as a context manager.

    Raises StorageError from any append when the disk is full or not writable; the record is then as it was before that append.
    """

    def __init__(self, folder: Place, lock: storage.Lock, exact: bool) -> None:
        self._folder = folder
        self._lock = lock
        self._exact = exact
        self._chain = storage.append_file(chain_path(folder))
        self._evals = SideFile(folder / "evals.jsonl")
        self._timings = SideFile(folder / "timings.jsonl", sync=False)
        self._seq = 0
        self._head = NO_HASH
        self._num_segments = 0
        self._position = 0
        self._ended = False
        self.is_closed = False
        self._recorded: deque[Line] = deque()
        self._hashes: set[str] = set()
        self.branches: list[BranchRecord] = []
        self.requests_taken: set[int] = set()

    @classmethod
    def create(cls, folder: Place, header: Mapping[str, Any], environment: Mapping[str, Any] | None = None) -> Self:
        """Begin a run. header: what makes the run repeatable, in the chain (no clock, host or path); environment: the rest, in run.json only.

        Raises RunFolderError when the folder holds a run already or another process writes it, StorageError.
        """
        try:
            storage.make_folder(segments_folder(folder))
            lock = storage.writer_lock(folder / "ledger" / "lock")
        except StorageError as error:  # nothing is there yet that could be resumed
            raise StorageError(f"run folder {folder}", f"it cannot be made: {error.why}", "Choose another --run.folder, or make room for it there.") from error
        if storage.read_bytes(folder / "run.json") is not None or next(storage.lines(chain_path(folder)), None) is not None:
            lock.close()
            raise RunFolderError(str(folder), "it holds a run already", "choose another folder, or go on with that run: `selftrain resume`")
        try:
            storage.publish(folder / "run.json", run_json(header, environment or {}))
        except BaseException:
            lock.close()
            raise
        return cls._open(folder, lock, None, exact=True)

    @classmethod
    def resume(cls, folder: Place, head: str | None, exact: bool) -> Self:
        """Go on after the record with hash `head` (the ledger head in the checkpoint; None: at the header, when there was no checkpoint).

        What is recorded after it stays and is compared with what is appended: equal records change nothing. A different one is a LedgerError when
        `exact`; otherwise the rest of the record is moved to `ledger/abandoned-<first 12 of its head>/` and a fork record names it.
        Raises RunFolderError when there is no run or its record has an older format, LedgerError when it is damaged or has no such head, StorageError.
        """
        if (written := read_run_json(folder)["format"]) != FORMAT:
            raise RunFolderError(str(folder), f"its record has format {written} and this version writes {FORMAT}", "go on with the version that began it")
        storage.make_folder(segments_folder(folder))
        return cls._open(folder, storage.writer_lock(folder / "ledger" / "lock"), head, exact)

    @classmethod
    def _open(cls, folder: Place, lock: storage.Lock, head: str | None, exact: bool) -> Self:
        writer = cls(folder, lock, exact)
        try:
            writer._load(head, read_run_json(folder)["header"])
            for part in (folder / "ledger", folder, folder.parent):
                storage.sync_folder(part)
        except BaseException:
            writer.close()
            raise
        return writer

    @property
    def head(self) -> str:
        """Hash of the last record that was appended or replayed."""
        return self._head

    def has(self, head: str) -> bool:
        """Whether a record of that hash was appended or replayed: what a replay has not come to yet may still be given up."""
        return head in self._hashes

    @property
    def branch(self) -> int:
        """How many rollbacks stand in the record so far."""
        return len(self.branches)

    @property
    def is_replaying(self) -> bool:
        """Whether something is recorded after the head: then what happens next is known, and nothing from outside is taken up."""
        return any(line.kind != "fork" for line in self._recorded)

    @property
    def recorded_request(self) -> RequestRecord | None:
        """The request that is recorded next; None when something else is, or nothing."""
        line = next((line for line in self._recorded if line.kind != "fork"), None)
        return records.request_from(line.body) if line is not None and line.kind == "request" else None

    def append_groups(self, step: int, scored: Sequence[ScoredGroup], probed: Sequence[VotedGroup] = ()) -> str:
        """Record the groups of a step with everything that was decided about them, and those of its probe; before the update. Returns the new head.

        Raises LedgerError when a group's parts do not fit together.
        """
        tables = records.to_tables(step, scored, probed)
        number = self._num_segments + 1
        body: dict[str, Any] = {"step": step, "segment": number}
        body |= {name: {"rows": table.num_rows, "sha256": digest(name, table)} for name, table in tables.items()}
        recorded = self._settle("segment", body)
        if recorded is not None and self._files_stand(recorded):
            return self._advance(recorded)
        encoded = {segments.file_name(number, name): segments.encode(name, table, number, self._head) for name, table in tables.items()}
        files = {name: segments.checksum(data) for name, data in encoded.items()}
        if recorded is not None and recorded.files != files:
            raise segments.damaged(segments.file_name(number, "groups"), "it cannot be written again with this version of pyarrow as it was")
        self._publish(encoded, is_new=recorded is None)
        return self._advance(recorded) if recorded is not None else self._write("segment", body, files)

    def _publish(self, encoded: Mapping[str, bytes], is_new: bool) -> None:
        """Write the files of a segment. is_new: no record names them yet, so where one cannot be written the other goes too."""
        folder = segments_folder(self._folder)
        try:
            for name, data in encoded.items():
                storage.publish(folder / name, data, sync=False)
            storage.sync_folder(folder)
        except BaseException:
            for name in encoded if is_new else ():
                with suppress(StorageError):
                    storage.remove(folder / name)
            raise

    def append_probe(self, step: int, values: Mapping[str, float]) -> str:
        """Record what the probe of a step says, before it is judged; nothing where there are no values. Returns the head."""
        return self._append("probe", {"step": step, "values": dict(values)}) if values else self.head

    def append_verdict(self, verdict: Verdict) -> str:
        """Record what the guard decided; before it is obeyed. Returns the new head."""
        return self._append("verdict", records.verdict_body(verdict))

    def append_step(self, metrics: StepMetrics, updates: Mapping[str, Any]) -> str:
        """Record the numbers of a step; after its update. updates: JSON values. Returns the new head."""
        return self._append("step", records.step_body(metrics, updates))

    def append_checkpoint(self, step: int, name: str, weights_hash: str) -> str:
        """Record a checkpoint; before it is saved, so that the head returned here goes into it. Returns the new head."""
        return self._append("checkpoint", {"step": step, "name": name, "weights_hash": weights_hash})

    def append_request(self, request: RequestRecord) -> str:
        """Record what somebody outside asked for; before it is done. Returns the new head."""
        return self._append("request", asdict(request))

    def append_branch(self, record: BranchRecord) -> str:
        """Record a rollback; before it is done. What comes then belongs to the new branch. Returns the new head."""
        if record.branch != self.branch + 1:
            raise LedgerError(f"branch {record.branch}", f"the record is at branch {self.branch}", "number branches one after the other")
        return self._append("branch", records.branch_body(record))

    def append_end(self, reason: str, handed_over: str) -> str:
        """Record that the run is over, why, and which checkpoint it hands over (or `start`); nothing can follow. An interrupted run has no end."""
        return self._append("end", {"reason": reason, "handed_over": handed_over})

    def record_eval(self, record: Mapping[str, Any]) -> None:
        """Add an evaluation to evals.jsonl, outside the chain. It needs `step` and `name`; `head`, the record it judged, is the current one unless given.

        Of several with one step and name readers take the last, so a replayed evaluation replaces the first.
        """
        self._evals.append({"head": self._head} | dict(record))

    def record_timing(self, record: Mapping[str, Any]) -> None:
        """Add a timing to timings.jsonl, outside the chain. It needs `step`; `name` tells several of one step apart."""
        self._timings.append({"name": "step"} | dict(record))

    def close(self) -> None:
        """Give the run back; another writer may then resume it. It does nothing a second time, or where another writer has the run by now.

        Raises StorageError.
        """
        self.is_closed = True
        with storage.storage_errors(self._folder), ExitStack() as parts:
            parts.callback(self._lock.close)
            if self._lock.is_held():
                for part in (self._timings, self._evals, self._chain):
                    parts.callback(part.close)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _append(self, kind: str, body: Mapping[str, Any]) -> str:
        recorded = self._settle(kind, body)
        return self._advance(recorded) if recorded is not None else self._write(kind, body, {})

    def _settle(self, kind: str, body: Mapping[str, Any]) -> Line | None:
        """The recorded line that this record repeats; None, with nothing recorded any more at its place, when it is new."""
        if self.is_closed:
            raise LedgerError(f"a {kind} record", "the run was given back", "take it up again with selftrain.resume(folder)")
        while self._recorded and self._recorded[0].kind == "fork" and kind != "fork":
            self._advance(self._recorded[0])
        if self._ended:
            raise LedgerError(f"a {kind} record", "the run has an end already", "begin a new run")
        if not self._recorded:
            return None
        recorded = self._recorded[0]
        if make_line(self._seq, kind, self._head, body).hash == recorded.hash or is_repeated(recorded, kind, body):
            return recorded
        if self._exact:
            raise LedgerError(
                f"record {self._seq} of the ledger, replayed",
                f"it differs from what is recorded: {difference(recorded, kind, body)}",
                "resume with the versions, threads and device of the first part, or begin a new run",
            )
        self._abandon()
        return None

    def _advance(self, line: Line) -> str:
        self._recorded.popleft()
        self._position += len(line.encode())
        return self._stand_after(line)

    def _write(self, kind: str, body: Mapping[str, Any], files: Mapping[str, str]) -> str:
        line = make_line(self._seq, kind, self._head, body)
        line = Line(line.seq, line.kind, line.prev, line.body, line.hash, files)
        data = line.encode()
        self._chain.append(data)
        self._position += len(data)
        return self._stand_after(line)

    def _stand_after(self, line: Line) -> str:
        self._seq, self._head = line.seq + 1, line.hash
        self._hashes.add(line.hash)
        self._num_segments += line.kind == "segment"
        self._ended = line.kind == "end"
        if line.kind == "branch":
            self.branches.append(records.branch_from(line.body))
        if line.kind == "request":
            self.requests_taken.add(records.request_from(line.body).number)
        return self._head

    def _load(self, head: str | None, header: Mapping[str, Any]) -> None:
        """Stand after the record `head`, hold what is recorded after it, drop what a killed writer left behind."""
        chained: set[str] = set()
        end, found = 0, False
        for offset, line in read_chain(chain_path(self._folder)):
            end = offset + len(line.encode())
            chained.update(segments.file_names(line))
            if found:
                self._recorded.append(line)
                continue
            if line.seq == 0 and canonical(plain(line.body.get("run"))) != canonical(header):
                raise LedgerError(f"{self._folder}/run.json", "its header is not the one in the ledger", "go back to a copy of the run folder")
            self._position = end
            self._stand_after(line)
            found = line.hash == head or (head is None and line.seq == 0)
        begun = end > 0 or head is not None
        if begun and not found:
            raise LedgerError(f"the ledger head {head}", "no record of this run has that hash", "resume from a checkpoint of this run")
        self._chain.cut(end)
        if not begun:
            self._append("header", {"format": FORMAT, "run": plain(header)})
        for name in storage.names(segments_folder(self._folder)):
            if name not in chained:
                storage.remove(segments_folder(self._folder) / name)

    def _files_stand(self, line: Line) -> bool:
        """Whether the files of a recorded segment are there as they were written."""
        found = {name: storage.read_bytes(segments_folder(self._folder) / name) for name in segments.file_names(line)}
        return all(data is not None and segments.checksum(data) == line.files.get(name) for name, data in found.items())

    def _abandon(self) -> None:
        """Move what is recorded from here on aside and name it in a fork record; the rename of the chain file decides."""
        tail = tuple(self._recorded)
        aside = abandoned_folder(self._folder, tail[-1].hash)
        storage.make_folder(aside)
        files = [name for line in tail for name in segments.file_names(line)]
        for name in files:
            storage.keep_as(segments_folder(self._folder) / name, aside / name)
        storage.publish(aside / "chain.jsonl", b"".join(line.encode() for line in tail))
        storage.sync_folder(aside.parent)
        fork = make_line(self._seq, "fork", self._head, {"abandoned_head": tail[-1].hash, "num_records": len(tail)})
        storage.replace_tail(chain_path(self._folder), self._position, fork.encode())
        self._chain.close()
        self._chain = storage.append_file(chain_path(self._folder))
        self._recorded.clear()
        self._position = self._chain.size
        self._stand_after(fork)
        for name in files:
            storage.remove(segments_folder(self._folder) / name)


def is_repeated(recorded: Line, kind: str, body: Mapping[str, Any]) -> bool:
    """Whether a record says what is recorded, but for metrics that an earlier version did not have, and the examples of findings, which it chose otherwise."""
    if recorded.kind != kind or kind not in ("step", "verdict"):
        return False
    old, new = (json.loads(json.dumps(plain(one))) for one in (recorded.body, body))
    if kind == "step":
        new["metrics"] = {name: value for name, value in new["metrics"].items() if name in old["metrics"] or name not in ADDED_LATER}
    else:
        for finding in (*old["findings"], *new["findings"]):
            finding.pop("examples", None)
    return bool(old == new)


def difference(recorded: Line, kind: str, body: Mapping[str, Any]) -> str:
    """Where a replayed record first differs from the recorded one, in words."""
    if recorded.kind != kind:
        return f"a {recorded.kind} is recorded, a {kind} came"
    return _difference("", plain(recorded.body), plain(body)) or "another record came before it"


def _difference(where: str, old: object, new: object) -> str | None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            found = _difference(f"{where}.{key}" if where else key, old.get(key), new.get(key))
            if found:
                return found
        return None
    return None if old == new else f"{where} was {old!r} and is {new!r}"
