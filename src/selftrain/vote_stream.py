"""Completions from files and pipes -> votes, one group after the other, in flat memory.

A row holds a prompt and one completion (rows of a group follow each other), or a prompt and a list of completions (a whole group). JSON lines, Parquet, and
`-` for JSON lines on standard input. Fields: `prompt`, `prompt_id`, `id`, `question` or `input`; `completion`, `text`, `response` or `output`, and their
plurals.
"""

from __future__ import annotations

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from selftrain.answers import read
from selftrain.answers.explanation import kind_of, why_equal
from selftrain.answers.freeform import Reader
from selftrain.answers.reading import key_of
from selftrain.errors import PromptError
from selftrain.row_files import Row, rows_of
from selftrain.types import AnswerKey, Answers, Vote
from selftrain.vote import count

PROMPT_FIELDS = ("prompt", "prompt_id", "id", "question", "input")
COMPLETION_FIELDS = ("completion", "text", "response", "output")
GROUP_FIELDS = ("completions", "texts", "responses", "outputs")
REMEMBERED = 100_000
"""prompts of which an overview knows whether they come back; memory stays flat"""
COLUMNS = (*PROMPT_FIELDS, *COMPLETION_FIELDS, *GROUP_FIELDS)


@dataclass(frozen=True, slots=True)
class RawGroup:
    """The completions of one prompt as they came. prompt: as in GroupVote; question: the text of a `prompt` or `question` field, of messages the last one."""

    prompt: str
    question: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupVote:
    """The vote on one prompt. `prompt` is the value of the prompt field as text, `answers` holds N texts and keys."""

    prompt: str
    answers: Answers
    vote: Vote

    @property
    def num_unread(self) -> int:
        return self.vote.num_votes - self.vote.num_read

    def surface_forms(self) -> dict[AnswerKey, dict[str, int]]:
        """For each key, most votes first, the ways it was written with their numbers."""
        forms: dict[AnswerKey, dict[str, int]] = {key: {} for key, _ in self.vote.counts}
        for text, key in zip(self.answers.texts, self.answers.keys, strict=True):
            if text is not None and key is not None:
                forms[key][text] = forms[key].get(text, 0) + 1
        return forms


@dataclass(frozen=True, slots=True)
class ExplainedCompletion:
    """One line of an explanation: completion `index` (from 0), what was read, its key, what kind of thing that is, and why it is in its cluster."""

    index: int
    text: str | None
    key: AnswerKey | None
    kind: str
    why: str


@dataclass(slots=True)
class Overview:
    """What a person wants to see of many votes: the groups that were nearly lost, ties, and answers that could not be read. Memory is bounded by `limit` and
    `REMEMBERED`. num_again: groups of a prompt that had one before, whose rows do not follow each other."""

    limit: int = 20
    num_groups: int = 0
    num_completions: int = 0
    num_unread: int = 0
    num_ties: int = 0
    num_empty: int = 0
    num_again: int = 0
    _seen: set[int] = field(default_factory=set)
    _closest: list[tuple[float, int, GroupVote]] = field(default_factory=list)
    _ties: list[GroupVote] = field(default_factory=list)
    _unread: list[tuple[float, int, GroupVote]] = field(default_factory=list)

    def add(self, group: GroupVote) -> None:
        """Counts a group and keeps it where it belongs to the closest calls, ties or least readable groups."""
        vote, number = group.vote, self.num_groups
        self.num_groups += 1
        self.num_completions += vote.num_votes
        self.num_unread += group.num_unread
        self.num_again += hash(group.prompt) in self._seen
        if len(self._seen) < REMEMBERED:
            self._seen.add(hash(group.prompt))
        if not vote.counts:
            self.num_empty += 1
        elif vote.is_tie:
            self.num_ties += 1
            if len(self._ties) < self.limit:
                self._ties.append(group)
        else:
            self._keep(self._closest, (-vote.margin_frac, -number, group))
        if group.num_unread:
            self._keep(self._unread, (group.num_unread / vote.num_votes, -number, group))

    def _keep(self, heap: list[tuple[float, int, GroupVote]], entry: tuple[float, int, GroupVote]) -> None:
        if len(heap) < self.limit:
            heapq.heappush(heap, entry)
        elif entry[:2] > heap[0][:2]:
            heapq.heapreplace(heap, entry)

    @property
    def closest(self) -> list[GroupVote]:
        """Decided groups with the smallest margins, smallest first."""
        return [entry[2] for entry in sorted(self._closest, key=lambda entry: entry[:2], reverse=True)]

    @property
    def ties(self) -> list[GroupVote]:
        """The first ties, in the order in which they came."""
        return list(self._ties)

    @property
    def least_read(self) -> list[GroupVote]:
        """Groups with the largest share of unread completions, largest first."""
        return [entry[2] for entry in sorted(self._unread, key=lambda entry: entry[:2], reverse=True)]


def votes_of(path: str, reader: Reader = read) -> Iterator[GroupVote]:
    """The votes of a file of JSON lines or Parquet, or of standard input for `-`. reader: how completions are read (`answers.freeform.reader`)."""
    return (vote_of(group, reader) for group in groups_of(path))


def votes_of_rows(rows: Iterable[Row], origin: str, reader: Reader = read) -> Iterator[GroupVote]:
    """The votes of rows; `groups_of_rows` says which rows are a group."""
    return (vote_of(group, reader) for group in groups_of_rows(rows, origin))


def vote_of(group: RawGroup, reader: Reader) -> GroupVote:
    answers = reader(group.texts)
    return GroupVote(group.prompt, answers, count(answers.keys))


def groups_of(path: str) -> Iterator[RawGroup]:
    """The groups of a file of JSON lines or Parquet, or of standard input for `-`."""
    return groups_of_rows(rows_of(path, COLUMNS), path)


def groups_of_rows(rows: Iterable[Row], origin: str) -> Iterator[RawGroup]:
    """One group per run of rows with one prompt; a prompt that comes back later is a group of its own. `origin` is named in errors."""
    return groups_of_numbered(enumerate(rows, 1), origin)


def groups_of_numbered(rows: Iterable[tuple[int, Row]], origin: str) -> Iterator[RawGroup]:
    """The same for rows that stand among others: each with its number, which errors name."""
    parted = ((number, row, *_parts(row, origin, number)) for number, row in rows)
    for (prompt, _), run in groupby(parted, key=lambda part: (part[2], part[0] if part[4] else 0)):
        parts = list(run)
        yield RawGroup(prompt, _question(parts[0][1], prompt), tuple(text for part in parts for text in part[3]))


def explain(group: GroupVote, clustering: str = "exact") -> list[ExplainedCompletion]:
    """For every completion of a group, in order: its answer, its key, and why it counts as the same answer as the most frequent spelling of its cluster.

    clustering: by which the keys were made; it is named where canonical keys alone would not have made one answer of two.
    """
    leading = {key: max(forms.items(), key=lambda item: (item[1], item[0]))[0] for key, forms in group.surface_forms().items()}
    lines: list[ExplainedCompletion] = []
    for index, (text, key) in enumerate(zip(group.answers.texts, group.answers.keys, strict=True)):
        if text is None or key is None:
            lines.append(ExplainedCompletion(index, None, None, "unread", "no answer was found: no finished marker, phrase or number"))
        else:
            alike = clustering == "exact" or key_of(text) == key_of(leading[key])
            why = why_equal(text, leading[key]) if alike else f"the same as {leading[key]!r} by clustering {clustering}"
            lines.append(ExplainedCompletion(index, text, key, kind_of(key), why))
    return lines


def _parts(row: Row, origin: str, number: int) -> tuple[str, list[str], bool]:
    """(prompt, completions, whether the row is a whole group) of a row."""
    prompt = next((row[name] for name in PROMPT_FIELDS if row.get(name) is not None), None)
    completions = next((row[name] for name in GROUP_FIELDS if row.get(name) is not None), None)
    completion = next((row[name] for name in COMPLETION_FIELDS if row.get(name) is not None), None)
    empty = next((name for name in COMPLETION_FIELDS + GROUP_FIELDS if name in row), None)
    if prompt is not None and completion is None and completions is None and empty is not None:
        raise PromptError(
            f"{origin}, row {number}", f"its {empty} is null", "give the text of the completion, an empty one where there is none, or drop the row"
        )
    if prompt is None or (completion is None and completions is None):
        missing = f"a prompt ({', '.join(PROMPT_FIELDS)})" if prompt is None else f"completions ({', '.join(COMPLETION_FIELDS + GROUP_FIELDS)})"
        raise PromptError(f"{origin}, row {number}", f"it has no field for {missing}; it has {', '.join(row) or 'none'}", "rename the fields")
    both = next((pair for pair in zip(COMPLETION_FIELDS, GROUP_FIELDS, strict=True) if all(row.get(name) is not None for name in pair)), None)
    if both is not None:
        raise PromptError(f"{origin}, row {number}", f"it has {both[0]} and {both[1]}: one completion and a list", "give one of the two")
    if completions is not None and not isinstance(completions, list | tuple):
        why = f"its list of completions is a {type(completions).__name__}"
        raise PromptError(f"{origin}, row {number}", why, f"give a list of texts, or one text as {', '.join(COMPLETION_FIELDS)}")
    texts = [_text(one) for one in ([completion] if completions is None else completions)]
    if not all(isinstance(text, str) for text in texts):
        raise PromptError(f"{origin}, row {number}", "a completion is not a text", "give each completion as a string")
    shown = prompt if isinstance(prompt, str) else json.dumps(prompt, ensure_ascii=False, sort_keys=True)
    return shown, texts, completions is not None


def _text(completion: Any) -> Any:
    """The text of a completion that is given as messages, as TRL writes it: of the last one; anything else as it is."""
    last = completion[-1] if isinstance(completion, list) and completion else None
    return last.get("content") if isinstance(last, dict) else completion


def _question(row: Row, prompt: str) -> str:
    """What was asked, for a judge to read."""
    asked = next((row[name] for name in ("prompt", "question") if row.get(name) is not None), prompt)
    if isinstance(asked, list) and asked and isinstance(asked[-1], dict):
        asked = asked[-1].get("content", prompt)
    return asked if isinstance(asked, str) else prompt
