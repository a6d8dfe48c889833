"""Which runs there are below a folder. The page names a run by its place there; a name that was not found here leads nowhere."""

from __future__ import annotations

from pathlib import Path
from threading import Lock
from typing import Any

from selftrain.errors import RunFolderError, SelftrainError
from selftrain.watch.tail import RunTail

DEPTH = 2
"""runs are looked for in the folder, its folders and theirs"""


class Runs:
    """The runs in a folder, or the one that a folder is. Raises RunFolderError when there is no such folder."""

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise RunFolderError(str(root), "there is no such folder", "Give a run's folder, or a folder with runs in it.")
        self.root = root
        self.single = (root / "run.json").is_file()
        self._tails: dict[str, RunTail] = {}
        self._lock = Lock()

    def ids(self) -> list[str]:
        """The runs there are now, by their path below the root."""
        if self.single:
            return [self.root.resolve().name]
        found = [path.parent for depth in range(DEPTH) for path in self.root.glob("*/" * (depth + 1) + "run.json")]
        return sorted(path.relative_to(self.root).as_posix() for path in found)

    def tail(self, run_id: str) -> RunTail:
        """A run, read on to what is there now. KeyError for an id that is not among `ids`; LedgerError when its record is damaged."""
        with self._lock:
            if run_id not in self._tails:
                if run_id not in self.ids():
                    raise KeyError(run_id)
                self._tails[run_id] = RunTail(run_id, self.root if self.single else self.root / run_id)
            tail = self._tails[run_id]
        tail.advance()
        return tail

    def summaries(self) -> list[dict[str, Any]]:
        """A line for every run, newest first; one whose record cannot be read says why."""
        lines = []
        for run_id in self.ids():
            try:
                lines.append(self.tail(run_id).summary())
            except SelftrainError as error:
                lines.append({"id": run_id, "name": run_id.rpartition("/")[2], "state": "damaged", "error": f"{error.given}: {error.why}"})
            except (KeyError, TypeError) as error:
                lines.append({"id": run_id, "name": run_id.rpartition("/")[2], "state": "damaged", "error": f"its header is not that of a run ({error})"})
        return sorted(lines, key=lambda line: (str(line.get("started") or ""), line["id"]), reverse=True)
