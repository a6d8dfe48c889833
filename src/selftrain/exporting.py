"""Run folder -> a clean Hugging Face folder: the weights that are handed over and a model card, without what only training needs."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from selftrain import kept_checkpoints
from selftrain.checkpoints import MANIFEST, verify_checkpoint
from selftrain.errors import CheckpointError, ModelError, RunFolderError, StorageError
from selftrain.handover import START
from selftrain.ledger import objects
from selftrain.ledger.objects import ObjectPath, Place, place
from selftrain.policies.toy import is_toy
from selftrain.report.card import model_card
from selftrain.report.record import RunRecord, read_record

CONFIG, CARD = "config.json", "README.md"
TRAINING_FILES = (MANIFEST, "optimizer.safetensors", "optimizer.json", "learner.json", "ema.safetensors")


@dataclass(frozen=True, slots=True)
class Export:
    """Where the model is, which checkpoint it was, and the names of its files."""

    folder: Place
    checkpoint: str
    files: tuple[str, ...]


def export(run: str | Place, target: str | Place, checkpoint: str | None = None) -> Export:
    """Write the model that a run hands over, or the checkpoint named, into a new folder: on a disk it appears whole or not at all, in a store config.json last.

    Raises RunFolderError when there is no run, no such checkpoint or something at `target`, ModelError for the toy policy, CheckpointError when the
    checkpoint is damaged, StorageError.
    """
    run, target = place(run), place(target)
    record = read_record(run)
    name = record.handed_over if checkpoint is None else checkpoint
    if is_toy(record.config.policy.model):
        why = "the toy policy is a table of numbers, which no Hugging Face folder can hold"
        raise ModelError(f"run {run}, policy.model = {record.config.policy.model}", why, "Export a run of a real model.")
    source = checkpoint_folder(record, name)
    if is_taken(target):
        raise RunFolderError(f"folder {target}", "there is something in it already", "Choose another folder, or empty this one.")
    source = verify_checkpoint(kept_checkpoints.on_disk(source)).path
    files = sorted(path.name for path in source.iterdir() if path.is_file() and path.name not in TRAINING_FILES)
    if CONFIG not in files:
        raise CheckpointError(f"checkpoint {source}", "it has no config.json, so it is no Hugging Face model", "Name another one with --checkpoint.")
    card = model_card(record, name)
    with storage_errors_of(target):
        if isinstance(target, ObjectPath):
            put_model(source, files, card, target)
        else:
            write_model(source, files, card, target)
    return Export(target, name, (*files, CARD))


def is_taken(target: Place) -> bool:
    """Whether there is something at a place already; an empty folder is nothing."""
    if isinstance(target, ObjectPath):
        with storage_errors_of(target):
            return bool(target.fs.find(target.path)) or target.fs.isfile(target.path)
    return target.exists() and (not target.is_dir() or any(target.iterdir()))


@contextmanager
def storage_errors_of(target: Place) -> Iterator[None]:
    """Turn an OSError of the block into a StorageError that says what to do about an export."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"folder {target}", f"it cannot be written ({error.strerror or error})", "Free space or choose another folder.") from error


def write_model(source: Path, files: Sequence[str], card: str, target: Path) -> None:
    temporary = target.parent / f".{target.name}.part"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for file in files:
            shutil.copyfile(source / file, temporary / file)
        (temporary / CARD).write_text(card, "utf-8")
        if target.is_dir():
            target.rmdir()
        temporary.rename(target)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def put_model(source: Path, files: Sequence[str], card: str, target: ObjectPath) -> None:
    """config.json comes last: until it is there, nothing takes the folder for a model."""
    objects.publish(target / CARD, card.encode())
    for file in sorted(files, key=lambda name: name == CONFIG):
        objects.upload(source / file, target / file)


def checkpoint_folder(record: RunRecord, name: str) -> Place:
    """Raises RunFolderError when the run does not have it, or it is the start, which is in no run folder."""
    present = kept_checkpoints.names(record.folder / "checkpoints")
    there = f"The run has {', '.join(present)}: name one with --checkpoint." if present else "The run has no checkpoint yet."
    if name == START:
        why = f"{'what it hands over' if record.handed_over == START else START} is the model it began with, {record.config.policy.model}, unchanged"
        raise RunFolderError(f"run {record.folder}", why, f"Use that model. {there}")
    if name not in present:
        raise RunFolderError(f"run {record.folder}, checkpoint {shlex.quote(name)}", "there is no such checkpoint", there)
    return record.folder / "checkpoints" / name
