"""The checkpoints of a run, wherever its folder is: on a disk or in an object store."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from selftrain import checkpoints, stored_checkpoints
from selftrain.checkpoints import Checkpoint, Objection
from selftrain.ledger.objects import ObjectPath, Place


def save(folder: Place, name: str, write: Callable[[Path], None], state: Mapping[str, Any]) -> Place:
    """As `checkpoints.save`."""
    return stored_checkpoints.save(folder, name, write, state) if isinstance(folder, ObjectPath) else checkpoints.save(folder, name, write, state)


def load_latest(folder: Place, objection: Objection = lambda found: None) -> Checkpoint | None:
    """As `checkpoints.load_latest`; the path is on this machine's disk."""
    return stored_checkpoints.load_latest(folder, objection) if isinstance(folder, ObjectPath) else checkpoints.load_latest(folder, objection)


def prune(folder: Place, keep: int, protect: set[str]) -> list[str]:
    """As `checkpoints.prune`."""
    return stored_checkpoints.prune(folder, keep, protect) if isinstance(folder, ObjectPath) else checkpoints.prune(folder, keep, protect)


def names(folder: Place) -> list[str]:
    """As `checkpoints.names`: oldest first."""
    return list(reversed(stored_checkpoints.names(folder))) if isinstance(folder, ObjectPath) else checkpoints.names(folder)


def on_disk(path: Place) -> Path:
    """A checkpoint's folder on this machine's disk: itself, or a copy that goes with the process."""
    return stored_checkpoints.fetch(path) if isinstance(path, ObjectPath) else path
