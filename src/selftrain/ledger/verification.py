"""Proves that a run's record is the one that was written, and that what was decided follows from what was generated."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from selftrain.errors import LedgerError
from selftrain.ledger import segments, storage
from selftrain.ledger.chain import FORMAT, KINDS, NO_HASH, Line, canonical, plain, read_chain
from selftrain.ledger.columns import TABLES
from selftrain.ledger.layout import abandoned_folder, chain_path, read_run_json, segments_folder
from selftrain.ledger.objects import ObjectPath, Place, place
from selftrain.ledger.reader import Ledger, read_segment
from selftrain.ledger.sidefiles import read_side
from selftrain.types import ScoredGroup


class Status(StrEnum):
    """What `verify` found."""

    INTACT = "intact"
    """finished, and every record is the one that was written"""
    UNFINISHED = "unfinished"
    """the same, but the run has no end: it is running or was interrupted"""
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is not as it was written. record: its number in the chain, None for what is outside it. where: the file, in the run folder."""

    record: int | None
    where: str
    words: str


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """The result. head: hash of the last good record. faults: by record, those outside the chain last. notes: what is odd but no fault."""

    status: Status
    head: str
    num_records: int
    num_segments: int
    faults: tuple[Fault, ...]
    notes: tuple[str, ...]

    @property
    def first(self) -> Fault | None:
        """The first bad record."""
        return self.faults[0] if self.faults else None


def verify(folder: str | Place, head: str | None = None) -> VerifyReport:
    """Check every record of a run: nothing changed, dropped, reordered or added. head: of a record, kept elsewhere, that must be in it.

    Without a `head` kept elsewhere somebody who rewrites all of the record from some point on, or cuts its end off, is not found out.
    Raises RunFolderError when there is no run, StorageError.
    """
    return _Verification(place(folder)).run(head)


class _Verification:
    """One pass over a run folder."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder
        self._faults: list[Fault] = []
        self._notes: list[str] = []
        self._heads: list[str] = []
        self._abandoned: set[str] = set()
        self._chained: set[str] = set()
        self._named = {"chain.jsonl", "chain.jsonl.tail", "lock", "segments"} if isinstance(folder, ObjectPath) else {"chain.jsonl", "lock", "segments"}
        self._num_segments = 0
        self._format = FORMAT
        self._num_branches = 0
        self._ended = False
        self._readable = True

    def run(self, head: str | None) -> VerifyReport:
        files = storage.names(segments_folder(self._folder))  # before the chain: a running writer makes the segment first, its record then
        header = self._header()
        last_byte = 0
        for offset, line in self._lines(chain_path(self._folder), 0, NO_HASH):
            last_byte = offset + len(line.encode())
            self._record(line, header)
        self._tail(last_byte)
        self._strays(files)
        for name in ("evals.jsonl", "timings.jsonl"):
            self._side(name)
        if head is not None:
            self._kept(head)
        self._faults.sort(key=lambda fault: (fault.record is None, fault.record or 0))
        status = Status.DAMAGED if self._faults else Status.INTACT if self._ended else Status.UNFINISHED
        last = self._heads[-1] if self._heads else NO_HASH
        return VerifyReport(status, last, len(self._heads), self._num_segments, tuple(self._faults), tuple(self._notes))

    def _within(self, path: Place) -> str:
        """A path as it is called in the run folder."""
        if isinstance(path, ObjectPath):
            assert isinstance(self._folder, ObjectPath)
            return path.below(self._folder)
        assert not isinstance(self._folder, ObjectPath)
        return path.relative_to(self._folder).as_posix()

    def _fault(self, record: int | None, where: str, words: str) -> None:
        self._faults.append(Fault(record, where, words))

    def _header(self) -> object:
        try:
            run = read_run_json(self._folder)
            self._format = run["format"]
            return run["header"]
        except LedgerError as error:
            self._fault(0, "run.json", error.why)
            return None

    def _lines(self, path: Place, seq: int, prev: str) -> Iterator[tuple[int, Line]]:
        """The good records of a chain file; the first bad one is a fault and the last."""
        expected = seq
        try:
            for offset, line in read_chain(path, seq, prev):
                expected = line.seq + 1
                yield offset, line
        except LedgerError as error:
            self._readable = False
            self._fault(expected, self._within(path), error.why)

    def _record(self, line: Line, header: object) -> None:
        where = "ledger/chain.jsonl"
        if self._ended:
            self._fault(line.seq, where, "it follows the end of the run")
        if line.kind not in KINDS or (line.kind == "header") != (line.seq == 0):
            self._fault(line.seq, where, f"a record of kind {line.kind!r} cannot stand there")
        if line.kind == "header" and header is not None and canonical(plain(header)) != canonical(plain(line.body.get("run"))):
            self._fault(0, "run.json", "its header is not the one in the chain")
        if line.kind == "header" and line.body.get("format") != self._format:
            self._fault(0, where, f"it has format {line.body.get('format')!r}, run.json has {self._format}")
        self._heads.append(line.hash)
        self._ended = self._ended or line.kind == "end"
        if line.kind == "segment":
            self._num_segments += 1
            if line.body.get("segment") != self._num_segments:
                self._fault(line.seq, where, f"it is segment {line.body.get('segment')}, the next one is {self._num_segments}")
            self._segment(line, segments_folder(self._folder))
            self._chained.update(segments.file_name(self._num_segments, table) for table in TABLES)
        elif line.files:
            self._fault(line.seq, where, "it names files, which only a segment has")
        if line.kind == "branch":
            self._num_branches += 1
            if line.body.get("branch") != self._num_branches:
                self._fault(line.seq, where, f"it is branch {line.body.get('branch')}, the next one is {self._num_branches}")
        if line.kind == "fork":
            self._fork(line)

    def _segment(self, line: Line, folder: Place) -> None:
        where = self._within(folder)
        try:
            read_segment(folder, line, self._format)
        except LedgerError as error:
            self._fault(line.seq, f"{where}/{error.given.removeprefix('the ledger file ')}", error.why)
        except (KeyError, TypeError, ValueError):
            self._fault(line.seq, "ledger/chain.jsonl", "it does not have the fields of a segment")

    def _fork(self, line: Line) -> None:
        """The records that a fork gave up, from the one that stood at its own place on."""
        head = line.body.get("abandoned_head")
        aside = abandoned_folder(self._folder, str(head))
        self._named.add(aside.name)
        last, number = None, 0
        for _, given_up in self._lines(aside / "chain.jsonl", line.seq, line.prev):
            last, number = given_up.hash, number + 1
            self._abandoned.add(given_up.hash)
            if given_up.kind == "segment":
                self._segment(given_up, aside)
            if given_up.kind == "fork":
                self._fork(given_up)
        if last != head or number != line.body.get("num_records"):
            self._fault(line.seq, f"ledger/{aside.name}", "the records that were given up there are not all there")

    def _tail(self, end: int) -> None:
        """What stands behind the last good record: nothing, or a torn line of a killed writer."""
        if not self._readable:
            return
        rest = sum(len(raw) for _, raw in storage.lines(chain_path(self._folder), end))
        if rest and self._ended:
            self._fault(len(self._heads), "ledger/chain.jsonl", "something follows the end of the run")
        elif rest:
            self._notes.append(f"the last line of ledger/chain.jsonl is torn ({rest} bytes): the writer was killed while it wrote; resuming drops it")
        if not self._heads and not self._faults:
            self._notes.append("the chain has no header yet: the writer was killed when it began; resuming writes it")

    def _strays(self, files: list[str]) -> None:
        """Files that the chain does not name."""
        in_flight = f"{self._num_segments + 1:06d}."
        for name in files:
            if name in self._chained:
                continue
            if name.startswith(storage.TEMPORARY) or (not self._ended and name.startswith(in_flight)):
                self._notes.append(f"ledger/segments/{name} is not in the chain: it is being written, or its writer was killed; resuming drops it")
            elif self._readable:
                self._fault(None, f"ledger/segments/{name}", "no record names it")
        for name in storage.names(self._folder / "ledger"):
            if name.startswith((storage.TEMPORARY, "abandoned-")) and name not in self._named:
                self._notes.append(f"ledger/{name} is left over from a writer that was killed")
            elif name not in self._named:
                self._fault(None, f"ledger/{name}", "it does not belong to the record")

    def _side(self, name: str) -> None:
        """A file beside the chain: its lines are whole, and what they judge is in the record."""
        known = {*self._heads, *self._abandoned}
        try:
            for _, record in read_side(self._folder / name):
                if "head" in record and record["head"] not in known and self._readable:
                    self._fault(None, name, f"the record {record['head']} that it judges (step {record['step']}, {record['name']}) is not in the ledger")
        except LedgerError as error:
            self._fault(None, name, f"{error.given}: {error.why}")

    def _kept(self, head: str) -> None:
        if head in self._abandoned:
            self._fault(None, "ledger/chain.jsonl", f"the record {head} was given up at a fork")
        elif head not in self._heads:
            self._fault(None, "ledger/chain.jsonl", f"the given head {head} is not in it")
        elif head != self._heads[-1]:
            self._notes.append(f"{len(self._heads) - 1 - self._heads.index(head)} records follow the given head")


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A recorded value that does not follow from what is recorded beside it."""

    step: int
    group_index: int
    name: str
    recorded: object
    recomputed: object


@dataclass(frozen=True, slots=True)
class ReplayReport:
    """How many groups were recomputed, how many values differed, and the first of those."""

    num_groups: int
    num_mismatches: int
    mismatches: tuple[Mismatch, ...]


RECORDED: Mapping[str, Callable[[ScoredGroup], object]] = {
    "extras": lambda scored: scored.voted.group.extras,
    "missing_extras": lambda scored: 0,
    "answers": lambda scored: scored.voted.answers,
    "vote": lambda scored: scored.voted.vote,
    "label": lambda scored: scored.label,
    "rewards": lambda scored: scored.rewards,
    "shaped_rewards": lambda scored: scored.shaped_rewards,
    "advantages": lambda scored: scored.advantages,
    "admission": lambda scored: scored.admission,
    "corrections": lambda scored: scored.corrections,
}
"""What can be recomputed, by name."""


def verify_replay(ledger: Ledger, recompute: Mapping[str, Callable[[ScoredGroup], Any]], max_shown: int = 20) -> ReplayReport:
    """Recompute decisions of every recorded group and compare. recompute: name in `RECORDED` -> what that value should be, from the recorded group.

    Each value is recomputed from the recorded ones before it, so agreement in all of them is agreement from the texts on.
    Raises LedgerError for a name that cannot be recomputed or a damaged segment.
    """
    unknown = sorted(recompute.keys() - RECORDED.keys())
    if unknown:
        raise LedgerError(f"recomputing {', '.join(unknown)}", "no such value is recorded", f"choose from {', '.join(RECORDED)}")
    num_groups, num_mismatches = 0, 0
    shown: list[Mismatch] = []
    for branch, step in ledger.group_keys(rolled_back=True):
        for scored in ledger.groups(step, branch):
            num_groups += 1
            for name, function in recompute.items():
                recorded, value = RECORDED[name](scored), function(scored)
                if recorded == value:
                    continue
                num_mismatches += 1
                if len(shown) < max_shown:
                    shown.append(Mismatch(step, scored.voted.group.index, name, recorded, value))
    return ReplayReport(num_groups, num_mismatches, tuple(shown))
