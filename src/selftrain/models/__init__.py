"""The embedded models: character-level Llamas in normal Hugging Face folders, made by `scripts/make_model.py`."""

from __future__ import annotations

from pathlib import Path

from selftrain.errors import ModelError

EMBEDDED: dict[str, Path] = {name: Path(__file__).parent / name for name in ("default", "weak")}
"""Name to folder. `default` has a vote that is mostly right on `add:4`, `weak` one that is mostly wrong there."""


def folder(name: str) -> Path:
    """The folder of an embedded model. ModelError for an unknown name or a folder that was not installed."""
    if name not in EMBEDDED or not (EMBEDDED[name] / "config.json").is_file():
        raise ModelError(f"embedded model {name!r}", f"the embedded models are {', '.join(EMBEDDED)}", "give one of these names, or the path of a model folder")
    return EMBEDDED[name]
