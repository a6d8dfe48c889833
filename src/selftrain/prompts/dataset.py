"""Hugging Face datasets -> rows (extra `datasets`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from selftrain.errors import MissingExtraError, PromptError
from selftrain.prompts.rows import Columns, Row


def dataset_rows(name: str, split: str, columns: Columns) -> Iterator[Row]:
    """The rows of one split of a dataset: NAME or NAME:CONFIG on the hub, or a folder, also one that `save_to_disk` wrote.

    Columns that no prompt needs are not decoded. MissingExtraError without the package; PromptError where there is no such dataset, configuration or split.
    """
    table = _loaded(name, split)
    wanted = [column for column in table.column_names if column in {"id", columns.prompt, columns.answer, *_roots(columns)}]
    for number, values in enumerate(table.select_columns(wanted) if columns.prompt.split(".")[0] in wanted else table, start=1):
        yield Row(f"row {number}", values)


def _loaded(name: str, split: str) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtraError(f"prompts.dataset = {name!r}", "the package datasets is not installed", "run: pip install 'selftrain[datasets]'") from error
    path, _, config = (name, "", "") if Path(name).exists() else name.partition(":")
    try:
        if (Path(path) / "dataset_dict.json").exists() or (Path(path) / "state.json").exists():
            return _split_of(datasets.load_from_disk(path), split)
        return datasets.load_dataset(path, config or None, split=split)
    except (FileNotFoundError, ConnectionError, ValueError, RuntimeError) as error:
        message = str(error).strip().splitlines()
        raise PromptError(
            f"dataset {name!r}, split {split!r}",
            f"it cannot be loaded: {message[0] if message else type(error).__name__}",
            "check prompts.dataset (NAME or NAME:CONFIG), prompts.dataset_split, and the connection or the folder",
        ) from error


def _split_of(saved: Any, split: str) -> Any:
    """A split of what `save_to_disk` wrote; a folder of one split has no names. ValueError where it is missing."""
    if not isinstance(saved, dict):
        return saved
    if split not in saved:
        raise ValueError(f"its splits are {', '.join(saved)}")
    return saved[split]


def _roots(columns: Columns) -> set[str]:
    """The columns in which dotted names begin."""
    return {columns.prompt.split(".")[0], columns.answer.split(".")[0]}
