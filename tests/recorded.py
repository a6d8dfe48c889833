"""Finished runs, each made once for all the tests that only read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from selftrain.config_load import load_config
from selftrain.run import Outcome, train_to_end


class RecordedRuns:
    """A run by its options: a run of the same options elsewhere ends the same, whatever its folder and name.

    To be asked before anything is patched, and to be read, not changed: it is the same folder for everybody.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made: dict[str, Outcome] = {}

    def __call__(self, options: Mapping[str, Any], **more: Any) -> Outcome:
        given = {**options, **{key.replace("__", "."): value for key, value in more.items()}}
        key = json.dumps(given, sort_keys=True)
        if key not in self._made:
            place = {"run.folder": str(self._folder), "run.name": f"run-{len(self._made)}"}
            self._made[key] = train_to_end(load_config(overrides={**given, **place}))
        return self._made[key]
