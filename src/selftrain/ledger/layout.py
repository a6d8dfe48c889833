"""Where the parts of a run's record are, and the file `run.json` that says what run it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftrain.errors import LedgerError, RunFolderError
from selftrain.ledger import storage
from selftrain.ledger.chain import FORMAT, canonical, decode, plain
from selftrain.ledger.migrations import is_readable
from selftrain.ledger.objects import Place


def chain_path(folder: Place) -> Place:
    """The chain file of a run."""
    return folder / "ledger" / "chain.jsonl"


def segments_folder(folder: Place) -> Place:
    """Where the segments of a run are."""
    return folder / "ledger" / "segments"


def abandoned_folder(folder: Place, head: str) -> Place:
    """Where the records are that a fork gave up; `head` is the last of them."""
    return folder / "ledger" / f"abandoned-{head[:12]}"


def run_json(header: Mapping[str, Any], environment: Mapping[str, Any]) -> bytes:
    """The bytes of run.json."""
    return canonical({"format": FORMAT, "header": plain(header), "environment": plain(environment)}) + b"\n"


def read_run_json(folder: Place) -> dict[str, Any]:
    """What run.json says. Raises RunFolderError when there is no run, LedgerError when it is damaged."""
    data = storage.read_bytes(folder / "run.json")
    if data is None:
        raise RunFolderError(str(folder), "there is no run in it (no run.json)", "name the folder of a run")
    try:
        run = decode(data)
    except ValueError as error:
        raise LedgerError(f"{folder}/run.json", f"it is not JSON ({error})", "go back to a copy of the run folder") from error
    if not isinstance(run, dict) or run.keys() != {"format", "header", "environment"}:
        raise LedgerError(f"{folder}/run.json", "it does not have the fields of a run", "go back to a copy of the run folder")
    if not is_readable(run["format"]):
        raise LedgerError(
            f"{folder}/run.json", f"its ledger has format {run['format']}; this version reads formats 1 to {FORMAT}", "read it with the version that wrote it"
        )
    return run
