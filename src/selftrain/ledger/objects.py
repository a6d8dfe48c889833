"""How the run record touches an object store, through fsspec: the same few operations as on a disk, on objects that are whole or not there.

A log cannot be appended to in an object store. Each append is an object of its own, `NAME.tail/<offset>`, made on condition that it is not there yet, so
that of two writers only one can go on from a place. Now and then, and when the log is closed, the tail is joined into the object `NAME`: a closed run has
the same files as on a disk. A reader takes the tail's names first and the joined object then: what was joined in between it finds there.
"""

from __future__ import annotations

import io
import json
import os
import socket
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from selftrain.errors import ConfigError, MissingExtraError, RunFolderError, StorageError

JOIN_EVERY = 256
"""Appends after which a log's tail is joined: reading takes at most so many objects besides the joined one."""
WHOLE_PUTS = {"memory", "s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss", "http", "https"}
"""Protocols where an object appears whole or not at all. On others a file is written under another name and moved."""
_RETRIES = 5
_MAX_KEPT = 8


@dataclass(frozen=True)
class ObjectPath:
    """A place in an fsspec file system, joined and taken apart like a `pathlib` path. It prints as its URL."""

    fs: Any
    path: str

    def __truediv__(self, name: str) -> ObjectPath:
        return ObjectPath(self.fs, f"{self.path.rstrip('/')}/{name}")

    @property
    def name(self) -> str:
        return self.path.rstrip("/").rpartition("/")[2]

    @property
    def parent(self) -> ObjectPath:
        return ObjectPath(self.fs, self.path.rstrip("/").rpartition("/")[0] or "/")

    def below(self, folder: ObjectPath) -> str:
        """The rest of the path below a folder."""
        return self.path.removeprefix(folder.path.rstrip("/") + "/")

    def __str__(self) -> str:
        return str(self.fs.unstrip_protocol(self.path))


Place = Path | ObjectPath
"""Where a run may be: on a disk, or in an object store."""


def place(text: str | os.PathLike[str] | ObjectPath) -> Place:
    """The place that a text names: a path, or a URL such as s3://bucket/runs/x. `file://` is a path: disks have better guarantees. A place is itself.

    Raises ConfigError for an empty text and an unknown kind of URL, MissingExtraError where its package is not installed.
    """
    if isinstance(text, ObjectPath):
        return text
    text = os.fspath(text)
    if not text:
        raise ConfigError("a folder ''", "an empty text names no place", "Give a path or a URL; the current folder is `.`.")
    if "://" not in text:
        return Path(text.rstrip("/") or "/")
    from fsspec.core import url_to_fs

    try:
        fs, path = url_to_fs(text)
    except ValueError as error:
        raise ConfigError(text, f"no storage has that protocol ({error})", "Give a path, or a URL that fsspec knows: s3://, gs://, abfs://, ...") from error
    except ImportError as error:
        protocol = text.partition("://")[0]
        raise MissingExtraError(text, f"its package is not installed ({error})", f"Install it: pip install 'selftrain[{protocol}]', or see fsspec.") from error
    if "file" in protocols(fs):
        return Path(path)
    return ObjectPath(fs, path.rstrip("/"))


def protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def publish(path: ObjectPath, data: bytes) -> None:
    """Write an object so that a reader sees all of it or nothing."""
    fs = path.fs
    if WHOLE_PUTS & set(protocols(fs)):
        fs.pipe_file(path.path, data)
        return
    fs.makedirs(path.parent.path, exist_ok=True)
    temporary = (path.parent / f".tmp-{path.name}").path
    fs.pipe_file(temporary, data)
    fs.mv(temporary, path.path)


def create(path: ObjectPath, data: bytes) -> None:
    """Write an object that is not there yet. Raises FileExistsError.

    The store decides where it can (S3, Google and Azure do); elsewhere it is looked for first, and two that look in the same moment are not told apart.
    """
    if not WHOLE_PUTS & set(protocols(path.fs)):
        path.fs.makedirs(path.parent.path, exist_ok=True)
    try:
        path.fs.pipe_file(path.path, data, mode="create")
    except (NotImplementedError, TypeError, ValueError):
        if path.fs.exists(path.path):
            raise FileExistsError(str(path)) from None
        path.fs.pipe_file(path.path, data)


def create_once(path: ObjectPath, data: bytes) -> bool:
    """As `create`; whether it was written."""
    try:
        create(path, data)
    except FileExistsError:
        return False
    return True


def is_held(path: ObjectPath) -> bool | None:
    """Whether a writer holds the lock of a run; None where it is one of another machine, which may have been lost with it."""
    holder = read_bytes(path)
    return False if holder is None else is_there(holder)


def is_there(holder: bytes) -> bool | None:
    """Whether the writer that a lock names is still there; None where it is one of another machine.

    A container begun anew has the process number of the one before it: of this process only what it holds itself counts.
    """
    host, process = holder_of(holder)
    if host != socket.gethostname() or process is None:
        return None
    return holder in _held if process == os.getpid() else is_alive(process)


def holder_of(data: bytes) -> tuple[str | None, int | None]:
    """(host, process) in a lock; None each where it says nothing of the kind."""
    try:
        values = json.loads(data)
        host, process = values.get("host"), values.get("process")
    except (ValueError, AttributeError):
        return None, None
    return host if isinstance(host, str) else None, process if isinstance(process, int) else None


def read_bytes(path: ObjectPath) -> bytes | None:
    """All bytes of an object, None where there is none."""
    try:
        return bytes(path.fs.cat_file(path.path))
    except FileNotFoundError:
        return None


def names(folder: ObjectPath) -> list[str]:
    """Names in a folder, sorted; none where there is no folder."""
    folder.fs.invalidate_cache()
    try:
        found = folder.fs.ls(folder.path, detail=False)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted({str(name).rstrip("/").rpartition("/")[2] for name in found} - {""})


def remove(path: ObjectPath) -> None:
    """Remove an object; fine when there is none."""
    with suppress(FileNotFoundError):
        path.fs.rm_file(path.path)


def remove_folder(folder: ObjectPath) -> None:
    """Remove everything below a folder; fine when there is none."""
    with suppress(FileNotFoundError):
        folder.fs.rm(folder.path, recursive=True)


def keep_as(path: ObjectPath, other: ObjectPath) -> None:
    """Copy an object, unless it is there already or there is nothing to copy."""
    data = None if path.fs.exists(other.path) else read_bytes(path)
    if data is not None:
        publish(other, data)


_kept: OrderedDict[str, bytes] = OrderedDict()
"""Logs as they were last read: a reader goes back to single records of a log that it has just read through."""


def log_bytes(path: ObjectPath) -> bytes:
    """All of a log, as long as it is without a gap."""
    for _ in range(_RETRIES):
        tail = [name for name in names(tail_of(path)) if name.isdecimal()]
        joined = read_bytes(path) or b""
        wanted = [name for name in tail if int(name) >= len(joined)]
        parts = path.fs.cat([(tail_of(path) / name).path for name in wanted], on_error="return") if wanted else {}
        if not isinstance(parts, dict):
            parts = {(tail_of(path) / wanted[0]).path: parts}
        pieces, end = [joined], len(joined)
        for name in wanted:
            part = parts.get((tail_of(path) / name).path)
            if int(name) != end or not isinstance(part, bytes):
                break
            pieces.append(part)
            end += len(part)
        else:
            return keep(path, b"".join(pieces))
    return keep(path, b"".join(pieces))


def keep(path: ObjectPath, data: bytes) -> bytes:
    _kept[str(path)] = data
    _kept.move_to_end(str(path))
    while len(_kept) > _MAX_KEPT:
        _kept.popitem(last=False)
    return data


def lines(path: ObjectPath, start: int) -> Iterator[tuple[int, bytes]]:
    """(offset, line) of a log from byte `start` on, as of now; only a line feed ends a line."""
    for line in io.BytesIO(log_bytes(path)[start:]):
        yield start, line
        start += len(line)


def read_at(path: ObjectPath, offset: int, size: int) -> bytes:
    """`size` bytes of a log from `offset` on."""
    data = _kept.get(str(path))
    if data is None or offset + size > len(data):
        data = log_bytes(path)
    return data[offset : offset + size]


def tail_of(path: ObjectPath) -> ObjectPath:
    return path.parent / f"{path.name}.tail"


class ObjectLog:
    """A log that only grows, by whole entries; see the head of this module."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        self.size = len(log_bytes(path))
        self._parts = len(names(tail_of(path)))

    def append(self, data: bytes) -> None:
        """Add an entry. Raises RunFolderError when another writer has gone on from here, OSError."""
        part = tail_of(self._path) / f"{self.size:016d}"
        try:
            create(part, data)
        except FileExistsError as error:
            raise overtaken(self._path) from error
        if size_of(self._path) > self.size:  # the place was free again because another writer has joined its tail
            remove(part)
            raise overtaken(self._path)
        self.size += len(data)
        self._parts += 1
        if self._parts >= JOIN_EVERY:
            self.join()

    def cut(self, size: int) -> None:
        """Drop everything after `size` bytes, the newest first."""
        kept = log_bytes(self._path)[:size]
        for name in reversed(names(tail_of(self._path))):
            if int(name) >= size:
                remove(tail_of(self._path) / name)
        if len(log_bytes(self._path)) > size:
            publish(self._path, kept)
        self.size = size

    def join(self) -> None:
        """Make one object of the tail and what was joined before."""
        tail = names(tail_of(self._path))
        if tail:
            publish(self._path, log_bytes(self._path))
            for name in tail:
                remove(tail_of(self._path) / name)
        self._parts = 0

    def close(self) -> None:
        if self._parts:
            self.join()


def size_of(path: ObjectPath) -> int:
    """Bytes of an object, 0 where there is none."""
    path.fs.invalidate_cache()
    try:
        return int(path.fs.info(path.path)["size"])
    except FileNotFoundError:
        return 0


def overtaken(path: ObjectPath) -> RunFolderError:
    return RunFolderError(str(path), "another process has written this run since", "Stop one of them; then `selftrain resume` the run.")


class ObjectLock:
    """The right to write a run: an object that says who has it. It stays after a crash; on the same machine the next writer sees that its writer is gone."""

    def __init__(self, path: ObjectPath) -> None:
        """Raises RunFolderError when another writer holds it, OSError."""
        self._path = path
        self._mine = json.dumps({"host": socket.gethostname(), "process": os.getpid(), "token": uuid.uuid4().hex}).encode()
        try:
            create(path, self._mine)
        except FileExistsError:
            self._take_over()
        _held[self._mine] = self

    def _take_over(self) -> None:
        holder = read_bytes(self._path) or b""
        if is_there(holder) is False:
            publish(self._path, self._mine)
            return
        host, process = holder_of(holder)
        raise RunFolderError(
            str(self._path.parent.parent),
            f"another process is writing this run (host {host}, process {process})",
            f"Wait until it ends, or stop it. If it was lost with its machine, remove {self._path}; then `selftrain resume` the run.",
        )

    def is_held(self) -> bool:
        """Whether nobody else has it by now, and it was not given back. Raises OSError."""
        return self._mine in _held and read_bytes(self._path) == self._mine

    def close(self) -> None:
        """Give the right back, unless somebody else has it by now."""
        try:
            if self.is_held():
                remove(self._path)
        finally:
            _held.pop(self._mine, None)


_held: WeakValueDictionary[bytes, ObjectLock] = WeakValueDictionary()
"""The locks that this process holds, by what stands in them."""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def upload(source: Path, target: ObjectPath) -> None:
    """Copy a file of the disk into the store."""
    if not WHOLE_PUTS & set(protocols(target.fs)):
        target.fs.makedirs(target.parent.path, exist_ok=True)
    target.fs.put_file(str(source), target.path)


def download(folder: ObjectPath, target: Path) -> None:
    """Copy everything below a folder of the store to the disk. Raises StorageError where an object's name leaves the folder."""
    for found in folder.fs.find(folder.path):
        below = str(found).removeprefix(folder.path.rstrip("/") + "/")
        if below.startswith("/") or ".." in below.split("/"):
            raise StorageError(str(folder), f"the object {found} lies outside of it", "Go back to a copy of the run folder.")
        (target / below).parent.mkdir(parents=True, exist_ok=True)
        folder.fs.get_file(str(found), str(target / below))
