"""Checkpoints: folders that are there whole or not at all, with a checksum for every byte.

A checkpoint is a folder `step-000020` with whatever the writers put there and `manifest.json`: size and SHA-256 of every file, the state (step,
ledger head, anything JSON) and a SHA-256 of the manifest itself. It is made under a temporary name and renamed when all of it is on the disk.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import CheckpointError, SelftrainError, StorageError
from selftrain.ledger import storage
from selftrain.ledger.chain import canonical, decode, plain
from selftrain.ledger.objects import Place

MANIFEST = "manifest.json"
FORMAT = 1
_REPLACED = ".old-"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")
_DISK_FULL = ("No space left on device", "Disk quota exceeded", "File too large", "os error 28", "os error 122", "os error 27")
_NEARLY_FULL_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Refused:
    """A checkpoint that was not used, and why, in words."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint whose every byte was checked. refused: newer ones that are damaged."""

    name: str
    path: Path
    state: Mapping[str, Any]
    refused: tuple[Refused, ...] = ()


Objection = Callable[[Checkpoint], str | None]


def checkpoint_name(step: int, branch: int = 0) -> str:
    """The name of the checkpoint after a step. Example: `step-000020`; `branch-01-step-000020` on the branch after the first rollback."""
    return f"branch-{branch:02d}-step-{step:06d}" if branch else f"step-{step:06d}"


def place_of(name: str) -> tuple[int, int] | None:
    """(branch, steps done) of a checkpoint's name; None for a name of another form."""
    match = re.fullmatch(r"(?:branch-(\d+)-)?step-(\d+)", name)
    return (int(match[1] or 0), int(match[2])) if match else None


def save(folder: Path, name: str, write: Callable[[Path], None], state: Mapping[str, Any]) -> Path:
    """Make the checkpoint `name` in `folder`: `write` fills the folder it is given. Returns where it stands.

    A checkpoint of that name is replaced when its content differs. Raises StorageError when the disk is full or not writable and CheckpointError when
    the name, the state or what was written cannot be kept; the checkpoints that were there stay as they were.
    """
    if not _NAME.fullmatch(name):
        raise CheckpointError(f"a checkpoint named {name!r}", "names have lower-case letters, digits, dots, dashes and underscores", "use `step-000020`")
    storage.make_folder(folder)
    _tidy(folder)
    temporary = folder / f"{storage.TEMPORARY}{name}"
    with storage.storage_errors(temporary):
        try:
            temporary.mkdir()
            write(temporary)
            content = _manifest(name, temporary, state)
            _write_synced(temporary / MANIFEST, content)
            _sync_tree(temporary)
            _put(temporary, folder / name, content)
        except BaseException as error:
            full = _says_disk_full(error, folder)  # before the half-written folder gives its space back
            with suppress(OSError):
                _delete(temporary)
            if full:
                raise StorageError(
                    f"writing the checkpoint {folder / name}",
                    "the disk is full",
                    "free some space, then `selftrain resume` the run: earlier checkpoints are intact",
                ) from error
            raise
    return folder / name


def load_latest(folder: Path, objection: Objection = lambda found: None) -> Checkpoint | None:
    """The newest valid checkpoint in a folder, None where there is none at all. It changes nothing in the folder.

    objection: why a whole one is not to be used, None where it is. Such a one and a damaged one are passed over and named in `refused`. Raises
    CheckpointError when there are some and none can be used.
    """
    refused: list[Refused] = []
    for path in _candidates(folder):
        try:
            found = verify_checkpoint(path)
        except CheckpointError as error:
            refused.append(Refused(path.name, error.why))
            continue
        if (why := objection(found)) is None:
            return Checkpoint(found.name, path, found.state, tuple(refused))
        refused.append(Refused(found.name, why))
    if refused:
        raise none_left(str(folder), refused)
    return None


def none_left(folder: str, refused: Sequence[Refused]) -> CheckpointError:
    reasons = "; ".join(f"{item.name}: {item.reason}" for item in refused)
    return CheckpointError(f"the checkpoints in {folder}", f"none of them can be used ({reasons})", "go back to a copy of the run folder, or begin a new run")


def verify_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in a folder, after reading every byte of it. Raises CheckpointError that says what is damaged, StorageError."""
    manifest = _read_manifest(path)
    found = _files(path)
    for file in sorted(found.keys() | manifest["files"].keys()):
        recorded = manifest["files"].get(file)
        if recorded is None:
            raise _damaged(path, f"{file} does not belong to it")
        if file not in found:
            raise _damaged(path, f"{file} is missing")
        if found[file] != recorded["bytes"]:
            raise _damaged(path, f"{file} has {found[file]} bytes instead of {recorded['bytes']}")
        if _checksum(path / file) != recorded["sha256"]:
            raise _damaged(path, f"{file} is not what was written (its checksum differs)")
    return Checkpoint(manifest["name"], path, manifest["state"])


def state_of(path: Place) -> Mapping[str, Any]:
    """The state in a checkpoint's manifest; its files are not read. Raises CheckpointError when the manifest is damaged, StorageError."""
    state: Mapping[str, Any] = _read_manifest(path)["state"]
    return state


def names(folder: Path) -> list[str]:
    """Names of the checkpoints in a folder, oldest first, damaged ones among them."""
    return [path.name for path in reversed(_candidates(folder)) if not path.name.startswith(".")]


def prune(folder: Path, keep: int, protect: set[str]) -> list[str]:
    """Delete all but the newest `keep` checkpoints (at least 1) and those in `protect`. Returns the names deleted, oldest first. Raises StorageError."""
    _tidy(folder)
    doomed = [path for path in _candidates(folder)[max(1, keep) :] if path.name not in protect]
    for path in reversed(doomed):
        temporary = folder / f"{storage.TEMPORARY}{path.name}"
        with storage.storage_errors(path):
            path.rename(temporary)
            _delete(temporary)
    return [path.name for path in reversed(doomed)]


def _candidates(folder: Path) -> list[Path]:
    """Checkpoint folders, newest first: by branch and step, those with another name last."""
    names = [name for name in storage.names(folder) if (folder / name).is_dir()]
    live = [name for name in names if not name.startswith(".")]
    stranded = [name for name in names if name.startswith(_REPLACED) and name.removeprefix(_REPLACED) not in live]

    def age(name: str) -> tuple[int, int, str]:
        return (*(place_of(name.removeprefix(_REPLACED)) or (-1, -1)), name)

    return [folder / name for name in sorted(live + stranded, key=age, reverse=True)]


def _tidy(folder: Path) -> None:
    """Remove what a killed process left behind; give an old checkpoint its name back when the new one never took it."""
    with storage.storage_errors(folder):
        for name in storage.names(folder):
            original = folder / name.removeprefix(_REPLACED)
            if name.startswith(storage.TEMPORARY) or (name.startswith(_REPLACED) and original.exists()):
                _delete(folder / name)
            elif name.startswith(_REPLACED):
                (folder / name).rename(original)


def _put(temporary: Path, path: Path, manifest: bytes) -> None:
    """Give a finished folder its name, through a second name for what has it now."""
    if not path.exists():
        temporary.rename(path)
    elif storage.read_bytes(path / MANIFEST) == manifest and _is_whole(path):
        _delete(temporary)
    else:
        replaced = path.parent / f"{_REPLACED}{path.name}"
        path.rename(replaced)
        temporary.rename(path)
        storage.sync_folder(path.parent)
        _delete(replaced)
    storage.sync_folder(path.parent)


def _is_whole(path: Path) -> bool:
    try:
        verify_checkpoint(path)
    except CheckpointError:
        return False
    return True


def _manifest(name: str, folder: Path, state: Mapping[str, Any]) -> bytes:
    found = _files(folder)
    if (folder / MANIFEST).exists():
        raise CheckpointError(f"the checkpoint {name}", f"its writers made a file {MANIFEST}", "give that file another name")
    files = {file: {"bytes": size, "sha256": _checksum(folder / file)} for file, size in found.items()}
    content = {"format": FORMAT, "name": name, "files": files, "state": plain(state)}
    return canonical(content | {"sha256": hashlib.sha256(canonical(content)).hexdigest()}) + b"\n"


def _read_manifest(path: Place) -> dict[str, Any]:
    data = storage.read_bytes(path / MANIFEST)
    if data is None:
        raise _damaged(path, f"{MANIFEST} is missing")
    try:
        content = decode(data)
    except ValueError as error:
        raise _damaged(path, f"{MANIFEST} is not JSON") from error
    if not isinstance(content, dict) or content.keys() != {"format", "name", "files", "state", "sha256"}:
        raise _damaged(path, f"{MANIFEST} does not have the fields of a manifest")
    rest = {key: value for key, value in content.items() if key != "sha256"}
    try:
        whole = content["sha256"] == hashlib.sha256(canonical(plain(rest))).hexdigest()
    except SelftrainError:
        whole = False
    if not whole:
        raise _damaged(path, f"{MANIFEST} is not what was written (its checksum differs)")
    if content["format"] != FORMAT:
        raise _damaged(path, f"it has format {content['format']}; this version reads format {FORMAT}")
    if content["name"] != path.name.removeprefix(_REPLACED):
        raise _damaged(path, f"it is the checkpoint {content['name']} under another name")
    return content


def _files(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder but its manifest, by path relative to it, in order."""
    with storage.storage_errors(folder):
        found = {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if path.is_file() or path.is_symlink()}
    return dict(sorted(item for item in found.items() if item[0] != MANIFEST))


def _checksum(path: Path) -> str:
    with storage.storage_errors(path), path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _write_synced(path: Path, data: bytes) -> None:
    storage.publish(path, data, sync=False)


def _sync_tree(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _delete(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)
    else:
        folder.unlink(missing_ok=True)


def _says_disk_full(error: BaseException, folder: Path) -> bool:
    """Libraries that write weights raise errors of their own; a full disk shows in their words, or in the disk."""
    if not isinstance(error, Exception) or isinstance(error, OSError | SelftrainError):
        return False
    with suppress(OSError):
        if any(words in str(error) for words in _DISK_FULL):
            return True
        return shutil.disk_usage(folder).free < _NEARLY_FULL_BYTES
    return False


def _damaged(path: Place, why: str) -> CheckpointError:
    return CheckpointError(f"the checkpoint {path}", why, "use an earlier checkpoint")
