"""Checkpoints in an object store: made on this machine's disk, then copied object by object, the manifest last. Without a manifest there is none."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selftrain import checkpoints
from selftrain.checkpoints import MANIFEST, Checkpoint, Objection, Refused
from selftrain.errors import CheckpointError
from selftrain.ledger import storage
from selftrain.ledger.objects import ObjectPath, download, remove_folder, upload

_fetched: list[tempfile.TemporaryDirectory[str]] = []
"""Copies of checkpoints on this machine's disk; they go with the process."""


def save(folder: ObjectPath, name: str, write: Callable[[Path], None], state: Mapping[str, Any]) -> ObjectPath:
    """As `checkpoints.save`. One that has the name and another content goes before the new one comes: a crash in between leaves those before it."""
    target = folder / name
    with tempfile.TemporaryDirectory(prefix="selftrain-") as local:
        made = checkpoints.save(Path(local), name, write, state)
        manifest = (made / MANIFEST).read_bytes()
        if storage.read_bytes(target / MANIFEST) == manifest:
            return target
        with storage.storage_errors(target):
            storage.remove(target / MANIFEST)
            remove_folder(target)
            for file in sorted(made.rglob("*")):
                if file.is_file() and file.name != MANIFEST:
                    upload(file, target / file.relative_to(made).as_posix())
        storage.publish(target / MANIFEST, manifest)
    return target


def names(folder: ObjectPath) -> list[str]:
    """Checkpoints that are there whole, newest first: by branch and step."""
    found = [name for name in storage.names(folder) if storage.read_bytes(folder / name / MANIFEST) is not None]
    return sorted(found, key=lambda name: (*(checkpoints.place_of(name) or (-1, -1)), name), reverse=True)


def load_latest(folder: ObjectPath, objection: Objection = lambda found: None) -> Checkpoint | None:
    """As `checkpoints.load_latest`; its path is a copy on this machine's disk."""
    refused: list[Refused] = []
    for name in names(folder):
        try:
            found = checkpoints.verify_checkpoint(fetch(folder / name))
        except CheckpointError as error:
            refused.append(Refused(name, error.why))
            continue
        if (why := objection(found)) is None:
            return Checkpoint(found.name, found.path, found.state, tuple(refused))
        refused.append(Refused(name, why))
    if refused:
        raise checkpoints.none_left(str(folder), refused)
    return None


def prune(folder: ObjectPath, keep: int, protect: set[str]) -> list[str]:
    """As `checkpoints.prune`; a folder without a manifest is what a killed process left."""
    whole = names(folder)
    left = [name for name in storage.names(folder) if name not in whole]
    doomed = [name for name in whole[max(1, keep) :] if name not in protect]
    for name in (*left, *reversed(doomed)):
        with storage.storage_errors(folder / name):
            storage.remove(folder / name / MANIFEST)
            remove_folder(folder / name)
    return list(reversed(doomed))


def fetch(path: ObjectPath) -> Path:
    """A copy of a checkpoint on this machine's disk, unchecked; it is removed when the process ends. Raises StorageError."""
    _fetched.append(tempfile.TemporaryDirectory(prefix="selftrain-", ignore_cleanup_errors=True))
    target = Path(_fetched[-1].name) / path.name
    target.mkdir()
    with storage.storage_errors(path):
        download(path, target)
    return target
