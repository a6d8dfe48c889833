"""Requests of a person to a run: files in its folder, taken up by the loop between two steps and recorded before they are obeyed.

A request is `requests/000001.json`, the next number that is free: `{"action": ..., "checkpoint": ..., "reason": ..., "who": ...}`. Whoever may write
into the run folder may ask; the run never removes or changes a request, and the ledger says which were taken up, when, and what came of them.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from selftrain.errors import ConfigError
from selftrain.ledger import Ledger, storage
from selftrain.ledger.objects import Place
from selftrain.ledger.records import RequestRecord, request_from

PAUSE, RESUME, STOP, ROLL_BACK, OVERRULE = "pause", "resume", "stop", "roll_back", "overrule"
ACTIONS = (PAUSE, RESUME, STOP, ROLL_BACK, OVERRULE)
"""overrule: what the guard sees now is how things should be; it begins to measure anew"""
UNREADABLE = "unreadable"
"""action of a file that holds no request: it is recorded and refused"""
MAX_CHARACTERS = 2000
_NAME = re.compile(r"(\d{6,12})\.json")
_ODD = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""control characters but for tabs and line ends, what turns the direction of writing, halves of characters"""


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked for. number: of its file. checkpoint: to go back to, its name or `start`; None for the other actions. reason, who: in a person's words."""

    number: int
    action: str
    checkpoint: str | None
    reason: str
    who: str


def requests_folder(folder: Place) -> Place:
    """Where the requests to a run are."""
    return folder / "requests"


def ask(folder: Place, action: str, who: str, reason: str = "", checkpoint: str | None = None) -> Request:
    """Write a request into a run folder; it is there whole or not at all. Raises ConfigError for one that makes no sense, StorageError."""
    values = {"action": action, "checkpoint": checkpoint, "reason": reason, "who": who}
    wrong = fault_of(values)
    if wrong:
        raise ConfigError(
            f"the request {action!r} to {folder}", wrong, "Ask for pause, resume, stop, overrule with a reason, or roll_back with a checkpoint and a reason."
        )
    data = json.dumps(values, sort_keys=True).encode() + b"\n"
    with storage.advice("Let there be room in the run folder that you may write to, and ask again."):
        storage.make_folder(requests_folder(folder))
        number = max(numbers(folder), default=0) + 1
        while not storage.create(file_of(folder, number), data):
            number += 1
    return Request(number, action, checkpoint, reason, who)


def waiting(folder: Place, taken: Collection[int]) -> Request | None:
    """The oldest request that was not taken up yet. Raises StorageError."""
    number = next((number for number in numbers(folder) if number not in taken), None)
    return None if number is None else read_request(folder, number)


def read_request(folder: Place, number: int) -> Request:
    """The request of a number; its action is `unreadable`, and its reason says why, where its file holds none."""
    path = requests_folder(folder) / files(folder).get(number, file_of(folder, number).name)
    try:
        if isinstance(path, Path) and not (path.is_file() and os.access(path, os.R_OK)):
            return Request(number, UNREADABLE, None, "it is not a file that can be read", "unknown")
        values = json.loads((storage.read_bytes(path) or b"")[: 8 * MAX_CHARACTERS])
        wrong = fault_of(values)
    except (ValueError, RecursionError):
        wrong = "it is not JSON"
    if wrong:
        return Request(number, UNREADABLE, None, wrong, "unknown")
    return Request(number, values["action"], values["checkpoint"], values["reason"], values["who"])


def fault_of(values: Any) -> str:
    """Why these values are no request; empty where they are one."""
    if not isinstance(values, dict) or values.keys() != {"action", "checkpoint", "reason", "who"}:
        return "it does not have the fields action, checkpoint, reason, who"
    texts = [values["action"], values["reason"], values["who"], values["checkpoint"] or ""]
    if not all(isinstance(text, str) and len(text) <= MAX_CHARACTERS for text in texts):
        return f"a field is not a text of at most {MAX_CHARACTERS} characters"
    odd = next((found[0] for text in texts if (found := _ODD.search(text))), None)
    if odd is not None:
        return f"a field has a character that cannot be shown, U+{ord(odd):04X}"
    if values["action"] not in ACTIONS:
        return f"there is no action {values['action'][:40]!r}"
    if values["action"] == ROLL_BACK and not (values["checkpoint"] and values["reason"].strip()):
        return "a rollback needs a checkpoint and a reason"
    if values["action"] == OVERRULE and not values["reason"].strip():
        return "overruling the guard needs a reason"
    if values["action"] != ROLL_BACK and values["checkpoint"] is not None:
        return "only a rollback names a checkpoint"
    return ""


def visible(text: str) -> str:
    """The text on one line, with characters that a request may not have as escapes: records of before may hold such requests."""
    return _ODD.sub(lambda found: ascii(found[0])[1:-1], re.sub(r"[\r\n]+", " ", text))


def numbers(folder: Place) -> list[int]:
    """Numbers of the requests in a run folder, ascending."""
    return sorted(files(folder))


def files(folder: Place) -> dict[int, str]:
    """Number -> name of its file. A person may write more zeros than `ask` does; of two names with one number the shorter counts."""
    found = (_NAME.fullmatch(name) for name in storage.names(requests_folder(folder)))
    return {int(match[1]): match[0] for match in found if match}


def file_of(folder: Place, number: int) -> Place:
    return requests_folder(folder) / f"{number:06d}.json"


def overrulings(ledger: Ledger) -> list[tuple[int, RequestRecord]]:
    """(branch, request) of every time that a person overruled the guard of a run, in order."""
    asked = [(entry.branch, request_from(ledger.line(entry).body)) for entry in ledger.entries if entry.kind == "request"]
    return [(branch, one) for branch, one in asked if one.action == OVERRULE and not one.refused]


def overruled_steps(ledger: Ledger) -> set[tuple[int, int]]:
    """(branch, step) of the steps before which a person overruled the guard of a run: it stays overruled there for a run that comes back to that place."""
    return {(branch, one.step) for branch, one in overrulings(ledger)}
