"""Reading a file of stored labels (`stored_labels.py` writes it): the header and the votes, every line checked."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from selftrain.answers import KEY_VERSION, key
from selftrain.errors import PromptError
from selftrain.labels.rules import Bounds, outcome_of
from selftrain.ledger.storage import read_bytes
from selftrain.types import AnswerKey, Outcome, Vote

FORMAT = "selftrain_labels"
"""The key of the header that names the file's kind; its value is the version of the format."""
Row = dict[str, Any]
HEADER: Mapping[str, type] = {"model": str, "model_hash": str, "prompts": dict, "sampling": dict, "labels": dict, "key_version": str, "seed": int}
"""What a header has, beside the format."""
BOUNDS = ("min_read_frac", "min_share_frac")
"""the options in the header by which a row's outcome follows from its counts"""
ROUNDED = 1e-9
MAKE = "Write the file by `selftrain label CONFIG... --out FILE`."


@dataclass(frozen=True, slots=True)
class StoredLabels:
    """What a file holds. votes: by prompt id, in the order of the rows. sha256: of the file's bytes."""

    header: Mapping[str, Any]
    votes: Mapping[str, Vote]
    sha256: str


def read_stored(file: Path) -> StoredLabels:
    """Raises PromptError, naming the line, for a file that is missing, of another kind, or changed by hand so that a row contradicts itself.

    A last line that was torn by a kill is left out; rows that somebody took out are no error: their prompts have no stored vote.
    """
    if file.is_dir():
        raise PromptError(f"stored labels {file}", "it is a folder", "Name the file in it.")
    data = read_bytes(file)
    if data is None:
        raise PromptError(f"stored labels {file}", "there is no such file", MAKE)
    lines = data.split(b"\n")[:-1]
    header = parsed(file, 1, lines[0]) if lines else {}
    if FORMAT not in header:
        raise PromptError(f"stored labels {file}", "its first line is not the header of such a file", MAKE)
    if header[FORMAT] != 1:
        raise PromptError(f"stored labels {file}", f"its format is {header[FORMAT]}, and this version reads 1", "Read it with the version that wrote it.")
    lacks = [name for name in HEADER if not isinstance(header.get(name), HEADER[name])]
    if lacks:
        raise PromptError(f"stored labels {file}, line 1", f"the header has no {', '.join(lacks)}, or not as it was written", "Undo the edit. " + MAKE)
    unset = [name for name in BOUNDS if not isinstance(header["labels"].get(name), float | int)]
    if unset:
        raise PromptError(f"stored labels {file}, line 1", f"its labels have no {' and no '.join(unset)}", "Undo the edit. " + MAKE)
    votes: dict[str, Vote] = {}
    for number, line in enumerate(lines[1:], 2):
        prompt_id, vote = vote_of(file, number, parsed(file, number, line), header)
        if prompt_id in votes:
            raise PromptError(f"stored labels {file}, line {number}", f"prompt {prompt_id} stands there twice", "Keep one of the two rows.")
        votes[prompt_id] = vote
    return StoredLabels(header, votes, hashlib.sha256(data).hexdigest())


def parsed(file: Path, number: int, line: bytes) -> Row:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise PromptError(f"stored labels {file}, line {number}", f"it is not JSON ({error})", "Take the line out, or write the file again.") from error
    if not isinstance(values, dict):
        raise PromptError(f"stored labels {file}, line {number}", "it is not a JSON object", "Take the line out, or write the file again.")
    return values


def vote_of(file: Path, number: int, row: Row, header: Mapping[str, Any]) -> tuple[str, Vote]:
    """Prompt id and vote of a row. The counts are the vote; what stands beside them and says otherwise would be read by nobody, so it is refused."""
    given, do = f"stored labels {file}, line {number}", "Undo the edit, or write the file again: whose answer wins is decided by votes."
    try:
        counts = tuple((AnswerKey(str(one)), int(votes)) for one, votes in row["counts"])
        prompt_id, vote = str(row["prompt_id"]), Vote(int(row["num_votes"]), int(row["num_read"]), counts)
        said = (Outcome(row["outcome"]), row["key"])
    except (KeyError, TypeError, ValueError) as error:
        raise PromptError(given, f"it is no stored vote ({type(error).__name__}: {error})", do) from error
    numbers = [votes for _, votes in counts]
    is_ordered = counts == tuple(sorted(counts, key=lambda one: (-one[1], one[0])))
    if len(dict(counts)) < len(counts) or min(numbers, default=1) < 1 or not is_ordered:
        raise PromptError(given, "its counts are not votes of different answers, most first", do)
    if not sum(numbers) == vote.num_read <= vote.num_votes or vote.num_votes < 1:
        raise PromptError(given, f"its counts are {sum(numbers)} votes, and num_read is {vote.num_read} of {vote.num_votes}", do)
    if said[0] is Outcome.DECIDED and vote.winners != (said[1],):
        raise PromptError(given, f"its key is {said[1]!r}, and its counts say {' and '.join(vote.winners) or 'nothing'}", do)
    if why := contradiction(row, vote, header):
        raise PromptError(given, why, do)
    return prompt_id, vote


def contradiction(row: Row, vote: Vote, header: Mapping[str, Any]) -> str | None:
    """What in a row does not follow from its counts and the header's options. Keys of another version are not made again, so answers are not looked at."""
    bounds = {name: header["labels"][name] for name in BOUNDS}
    outcome = outcome_of(vote, Bounds(**bounds))
    if row["outcome"] != outcome.value:
        options = ", ".join(f"labels.{name} = {value:g}" for name, value in bounds.items())
        return f"its outcome is {row['outcome']}, and its counts say {outcome.value} ({options} in line 1)"
    share = row.get("share_frac", vote.share_frac)
    if not isinstance(share, float | int) or not abs(share - vote.share_frac) <= ROUNDED:
        return f"its share_frac is {share!r}, and its counts say {vote.share_frac:g}"
    if outcome is not Outcome.DECIDED:
        named = next((f"its {name} is {row[name]!r}" for name in ("key", "answer") if row.get(name) is not None), None)
        return named and f"{named}, and a row whose outcome is {outcome.value} has none"
    answer = row.get("answer")
    if "answer" in row and header["key_version"] == KEY_VERSION and (not isinstance(answer, str) or key(answer) != row["key"]):
        return f"its answer is {answer!r}, and its key is {row['key']!r}"
    return None


def ids_of(data: bytes) -> list[object]:
    """The prompt of each whole row, None where a line has none."""
    found: list[object] = []
    for line in data.split(b"\n")[:-1]:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        found.append(row.get("prompt_id") if isinstance(row, dict) else None)
    return found


def complete_rows(data: bytes, size: int, total: int) -> tuple[int, int]:
    """(rows, bytes) of what is whole below the header: rows come in calls of `size`, the last one ends at `total`."""
    ends = list(accumulate(len(line) + 1 for line in data.split(b"\n")[:-1]))
    rows = len(ends) if len(ends) == total else len(ends) // size * size
    return rows, ends[rows - 1] if rows else 0
