"""How the run record touches a disk: atomic publication, append-only files, locks. Nothing else in `ledger/` opens a file.

A path may also be a place in an object store (objects.py): each function here then does its like there.
"""

from __future__ import annotations

import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

from selftrain.errors import RunFolderError, StorageError
from selftrain.ledger import objects
from selftrain.ledger.objects import ObjectLock, ObjectLog, ObjectPath, Place

TEMPORARY = ".tmp-"
"""Prefix of a file or folder that is not published yet; what a killed process left of it may be removed."""

_FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up", errno.EFBIG: "a file would become larger than the system allows"}
_CLOSED = {errno.EROFS: "the disk is read-only", errno.EACCES: "it may not be written", errno.EPERM: "it may not be written"}


def storage_error(path: Place, error: OSError) -> StorageError:
    """What an operating-system error at a path means, in words."""
    number = error.errno or 0
    if number in _FULL:
        return StorageError(f"writing {path}", _FULL[number], "free some space, then `selftrain resume` the run: everything recorded before is intact")
    if number in _CLOSED:
        return StorageError(f"writing {path}", _CLOSED[number], "make the folder writable for this user, then `selftrain resume` the run")
    return StorageError(
        f"reading or writing {path}", error.strerror or str(error), "check the disk, then `selftrain resume` the run: the record so far is intact"
    )


@contextmanager
def storage_errors(path: Place) -> Iterator[None]:
    """Turn every OSError of the block into a StorageError that names `path`."""
    try:
        yield
    except OSError as error:
        raise storage_error(path, error) from error


@contextmanager
def advice(do: str) -> Iterator[None]:
    """Let a StorageError of the block say what to do about it: what is written there is not the record of a run that could be resumed."""
    try:
        yield
    except StorageError as error:
        raise StorageError(error.given, error.why, do) from error


def make_folder(folder: Place) -> None:
    """Create a folder and its parents; fine when it exists. Raises RunFolderError when a file is in the way, StorageError."""
    if isinstance(folder, ObjectPath):
        return
    with storage_errors(folder):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            file = next((part for part in (folder, *folder.parents) if os.path.lexists(part) and not part.is_dir()), folder)
            what = "a file, not a folder" if file.exists() else "a link to nothing"
            raise RunFolderError(f"folder {folder}", f"{file} is {what}", "choose another folder for the run") from error


def sync_folder(folder: Place) -> None:
    """Make renames and removals in a folder survive a power cut. Raises StorageError."""
    if isinstance(folder, ObjectPath):
        return
    with storage_errors(folder):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def publish(path: Place, data: bytes, *, sync: bool = True) -> None:
    """Write a file so that a reader sees all of it or nothing: temporary file in the same folder, fsync, rename.

    sync: also fsync the folder; False where the caller publishes several files and syncs once. Raises StorageError.
    """
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            objects.publish(path, data)
        return
    temporary = path.parent / f"{TEMPORARY}{path.name}"
    with storage_errors(path):
        try:
            _write_synced(temporary, data)
            os.replace(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    if sync:
        sync_folder(path.parent)


def create(path: Place, data: bytes) -> bool:
    """Write a file that is there whole or not at all, unless there is one of that name already. Returns whether it was written. Raises StorageError."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            return objects.create_once(path, data)
    temporary = path.parent / f"{TEMPORARY}{os.getpid()}-{threading.get_ident()}-{path.name}"
    with storage_errors(path):
        try:
            _write_synced(temporary, data)
            os.link(temporary, path)
        except FileExistsError:
            return False
        finally:
            with suppress(OSError):
                temporary.unlink()
    sync_folder(path.parent)
    return True


def read_bytes(path: Place) -> bytes | None:
    """All bytes of a file, None where there is none. Raises StorageError."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            return objects.read_bytes(path)
    with storage_errors(path):
        try:
            return path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):  # the latter where a folder of the path is a file
            return None


def lines(path: Place, start: int = 0) -> Iterator[tuple[int, bytes]]:
    """(offset, line) from byte `start` on; the newline stays in the line, so a torn last line is one without. Nothing where there is no file."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            yield from objects.lines(path, start)
        return
    with storage_errors(path):
        if not path.exists():
            return
        with path.open("rb") as stream:
            stream.seek(start)
            for line in stream:
                yield start, line
                start += len(line)


def read_at(path: Place, offset: int, size: int) -> bytes:
    """`size` bytes of a file from `offset` on. Raises StorageError."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            return objects.read_at(path, offset, size)
    with storage_errors(path), path.open("rb") as stream:
        stream.seek(offset)
        return stream.read(size)


def names(folder: Place) -> list[str]:
    """Names in a folder, sorted; none where there is no folder."""
    if isinstance(folder, ObjectPath):
        with storage_errors(folder):
            return objects.names(folder)
    with storage_errors(folder):
        return sorted(os.listdir(folder)) if folder.is_dir() else []


def remove(path: Place) -> None:
    """Remove a file; fine when there is none. Raises StorageError."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            objects.remove(path)
        return
    with storage_errors(path):
        path.unlink(missing_ok=True)


def keep_as(path: Place, other: Place) -> None:
    """Give a file a second name, so that the first may be removed later; fine when it has it already or there is no file."""
    if isinstance(path, ObjectPath) or isinstance(other, ObjectPath):
        assert isinstance(path, ObjectPath)
        assert isinstance(other, ObjectPath)
        with storage_errors(other):
            objects.keep_as(path, other)
        return
    with storage_errors(other):
        if path.exists() and not other.exists():
            os.link(path, other)


def replace_tail(path: Place, size: int, data: bytes) -> None:
    """Let a log that nobody has open go on with `data` after its first `size` bytes. On a disk one rename decides; in a store the old tail goes first."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            log = ObjectLog(path)
            log.cut(size)
            log.append(data)
        return
    publish(path, read_at(path, 0, size) + data)


class Append(Protocol):
    """A log that only grows, by whole entries: a failed append leaves it as it was."""

    @property
    def size(self) -> int: ...
    def append(self, data: bytes, *, sync: bool = True) -> None: ...
    def cut(self, size: int) -> None: ...
    def close(self) -> None: ...


class Lock(Protocol):
    """The right to write a run, until `close`."""

    def is_held(self) -> bool: ...
    def close(self) -> None: ...


class StoredLog:
    """An ObjectLog whose errors are StorageErrors."""

    def __init__(self, path: ObjectPath) -> None:
        self._path = path
        with storage_errors(path):
            self._log = ObjectLog(path)

    @property
    def size(self) -> int:
        return self._log.size

    def append(self, data: bytes, *, sync: bool = True) -> None:  # noqa: ARG002 - an object that is there stays
        with storage_errors(self._path):
            self._log.append(data)

    def cut(self, size: int) -> None:
        with storage_errors(self._path):
            self._log.cut(size)

    def close(self) -> None:
        with storage_errors(self._path):
            self._log.close()


def append_file(path: Place) -> Append:
    """A log to append to. Raises StorageError."""
    return StoredLog(path) if isinstance(path, ObjectPath) else AppendFile(path)


def writer_lock(path: Place) -> Lock:
    """The right to write a run. Raises RunFolderError when another writer holds it, StorageError."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            return ObjectLock(path)
    return WriterLock(path)


def opened(path: Path, flags: int) -> int:
    """A descriptor that is none of the standard streams', not even where those are closed: what a library writes to its standard error goes elsewhere."""
    descriptor = os.open(path, flags, 0o644)
    if descriptor > 2:
        return descriptor
    try:
        return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 3)
    finally:
        os.close(descriptor)


class AppendFile:
    """A file that only grows, by whole entries: a failed append leaves it as it was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor = -1
        with storage_errors(path):
            self._descriptor = opened(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
            self.size = os.fstat(self._descriptor).st_size
        self._torn = False

    def append(self, data: bytes, *, sync: bool = True) -> None:
        """Append and, unless told not to, fsync. Raises StorageError; then the file is as it was before."""
        with storage_errors(self._path):
            if self._torn:
                self._cut(self.size)
            try:
                _write_all(self._descriptor, data)
                if sync:
                    os.fsync(self._descriptor)
            except BaseException:
                self._torn = True
                with suppress(OSError):
                    self._cut(self.size)
                raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Drop everything after `size` bytes. Raises StorageError."""
        with storage_errors(self._path):
            self._cut(size)
        self.size = size

    def _cut(self, size: int) -> None:
        os.ftruncate(self._descriptor, size)
        os.fsync(self._descriptor)
        self._torn = False

    def close(self) -> None:
        """Close the file; further appends fail."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


class WriterLock:
    """The right to write a run: held by one writer, given back by `close` or by the end of the process, however it ends."""

    def __init__(self, path: Path) -> None:
        """Raises RunFolderError when another writer holds it, StorageError."""
        self._descriptor = -1
        with storage_errors(path):
            self._descriptor = opened(path, os.O_RDWR | os.O_CREAT)
            try:
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                self.close()
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
                raise RunFolderError(
                    str(path.parent.parent), "another process is writing this run", "wait until it ends, or stop it; then `selftrain resume` the run"
                ) from error

    def is_held(self) -> bool:
        """Whether it was not given back: nobody can take it away."""
        return self._descriptor >= 0

    def close(self) -> None:
        """Give the right back."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def is_locked(path: Place) -> bool | None:
    """Whether a process of this machine holds the lock of a run; None where that cannot be seen. Looking takes no lock, so it is in nobody's way."""
    if isinstance(path, ObjectPath):
        with storage_errors(path):
            return objects.is_held(path)
    try:
        number = path.stat().st_ino
        locks = Path("/proc/locks").read_text()
    except OSError:
        return None
    return any(line.split()[5].endswith(f":{number}") for line in locks.splitlines() if "FLOCK" in line and len(line.split()) > 5)


def _write_synced(path: Path, data: bytes) -> None:
    """A file with these bytes, on the disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
