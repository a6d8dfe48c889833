"""The groups of a run: a small index to search and filter, one group in full, the history of a prompt."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from threading import Lock
from typing import Any

from selftrain.answers import extract_span
from selftrain.ledger import Entry, Ledger, lineage

CLOSE_MARGIN_FRAC = 0.25
"""a vote whose winner leads by less than this share of all votes is a disagreement"""
INDEXED: tuple[str, ...] = ("group_index", "prompt_id", "message_contents", "num_votes", "num_read", "vote_keys", "vote_counts")
INDEXED += ("label_outcome", "label_key", "admission", "role")
GROUP = (*INDEXED, "message_roles", "policy_version", "label_source", "label_decided_by", "label_uses_truth", "label_targets", "serves")
GROUP += ("label_weight", "label_offset")
COMPLETION: tuple[str, ...] = ("group_index", "completion_index", "text", "finish", "policy_version", "answer_text", "answer_key", "reward", "reward_reason")
COMPLETION += ("kl_penalty_nats", "shaped_reward", "advantage", "trained", "token_ids")


@dataclass(slots=True)
class Row:
    """What is kept in memory of a group. place: (branch, step, group index). flipped: the label differs from the last one of the same prompt."""

    place: tuple[int, int, int]
    prompt_id: str
    num_votes: int
    num_read: int
    num_keys: int
    share: float
    margin: float
    outcome: str
    label: str | None
    admission: str
    flipped: bool

    def shown(self, text: str) -> dict[str, Any]:
        branch, step, index = self.place
        return {
            "branch": branch,
            "step": step,
            "index": index,
            "prompt_id": self.prompt_id,
            "prompt": text[:200],
            "num_votes": self.num_votes,
            "num_read": self.num_read,
            "num_keys": self.num_keys,
            "share": self.share,
            "margin": self.margin,
            "outcome": self.outcome,
            "label": self.label,
            "admission": self.admission,
            "flipped": self.flipped,
        }


FILTERS: Mapping[str, Callable[[Row], bool]] = {
    "disagreement": lambda row: row.num_keys > 1 and row.margin < CLOSE_MARGIN_FRAC,
    "flip": lambda row: row.flipped,
    "unread": lambda row: row.num_read < row.num_votes,
    "undecided": lambda row: row.outcome != "decided",
}
"""and `finding`: groups of steps in which the guard found something"""
ORDERS: Mapping[str, Callable[[Row], Any]] = {
    "newest": lambda row: (-row.place[0], -row.place[1], row.place[2]),
    "oldest": lambda row: row.place,
    "margin": lambda row: (row.margin, row.share),
    "unread": lambda row: row.num_read / max(1, row.num_votes),
    "share": lambda row: -row.share,
}


class GroupIndex:
    """Grows with the record: each segment is read once, and of it only the columns of a vote and its label."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._rows: list[Row] = []
        self._texts: dict[str, str] = {}
        self._labels: dict[str, list[tuple[int, int, str]]] = {}
        self._next_entry = 0
        self._lock = Lock()

    def catch_up(self) -> None:
        """Read the segments that were recorded since. Raises LedgerError when one is damaged."""
        with self._lock:
            while self._next_entry < len(self._ledger.entries):
                entry = self._ledger.entries[self._next_entry]
                if entry.kind == "segment":
                    self._add(entry)
                self._next_entry += 1

    def _add(self, entry: Entry) -> None:
        found = self._ledger.rows(entry, "groups", INDEXED)
        branch, step = entry.branch, entry.step or 0
        history = lineage(self._ledger.branches, branch)
        for at, prompt_id in enumerate(found["prompt_id"]):
            if found["role"][at] != "vote":
                continue
            counts, votes, label = found["vote_counts"][at], found["num_votes"][at], found["label_key"][at]
            first, second = (*counts, 0, 0)[:2]
            known = self._labels.setdefault(prompt_id, [])
            before = next((one for of, when, one in reversed(known) if of in history and (of == branch or when < (history[of][1] or 0))), None)
            self._rows.append(
                Row(
                    place=(branch, step, found["group_index"][at]),
                    prompt_id=prompt_id,
                    num_votes=votes,
                    num_read=found["num_read"][at],
                    num_keys=len(counts),
                    share=first / votes if votes else 0.0,
                    margin=(first - second) / votes if votes else 0.0,
                    outcome=found["label_outcome"][at],
                    label=label,
                    admission=found["admission"][at],
                    flipped=before is not None and label is not None and before != label,
                )
            )
            if label is not None:
                known.append((branch, step, label))
            if prompt_id not in self._texts:
                self._texts[prompt_id] = found["message_contents"][at][-1]

    def search(self, wanted: Mapping[str, Any], found_steps: Collection[tuple[int, int]]) -> dict[str, Any]:
        """Groups that fit: step, branch, text (in the prompt, its id or the label), filters (all must hold), order, offset, limit; with the number of all.

        until: of how many groups of the record, as an answer says it, so that pages of one list fit together while the record grows, as long as there are as
        many branches: a rollback changes which groups count. found_steps: (branch, step) in which the guard found something.
        """
        self.catch_up()
        rows = self._rows[: wanted.get("until")]
        until = len(rows)
        if wanted.get("step") is not None:
            rows = [row for row in rows if row.place[1] == wanted["step"]]
        counted = {place: self._ledger.counts(*place) for place in {row.place[:2] for row in rows}}
        if wanted.get("branch") is not None:
            rows = [row for row in rows if row.place[0] == wanted["branch"]]
        elif not wanted.get("rolled_back"):
            rows = [row for row in rows if counted[row.place[:2]]]
        for name in wanted.get("filters", ()):
            rows = [row for row in rows if (FILTERS[name](row) if name in FILTERS else row.place[:2] in found_steps)]
        if text := str(wanted.get("text") or "").casefold().strip():
            near = {key for key, value in self._texts.items() if text in value.casefold() or text in key.casefold()}
            rows = [row for row in rows if row.prompt_id in near or text in (row.label or "").casefold()]
        rows = sorted(rows, key=ORDERS[wanted.get("order") or "newest"])
        offset, limit = wanted.get("offset", 0), wanted.get("limit", 50)
        page = [row.shown(self._texts[row.prompt_id]) | {"counts": counted[row.place[:2]]} for row in rows[offset : offset + limit]]
        return {"total": len(rows), "until": until, "branches": len(self._ledger.branches), "rows": page}

    def prompts(self, text: str, limit: int) -> dict[str, Any]:
        """Prompts that were visited at least twice, the most often visited first, with the number of all that fit; text: see `search`."""
        self.catch_up()
        wanted, visits = text.casefold().strip(), Counter(row.prompt_id for row in self._rows)
        fits = [one for one, times in visits.most_common() if times > 1 and (wanted in self._texts[one].casefold() or wanted in one.casefold())]
        return {"total": len(fits), "rows": [{"id": one, "text": self._texts[one][:200], "visits": visits[one]} for one in fits[:limit]]}

    def history(self, prompt_id: str) -> list[dict[str, Any]]:
        """Every visit to a prompt, in the order in which they came; counts: whether it belongs to the history of the newest branch."""
        self.catch_up()
        text = self._texts.get(prompt_id, "")
        return [row.shown(text) | {"counts": self._ledger.counts(*row.place[:2])} for row in self._rows if row.prompt_id == prompt_id]


def group(ledger: Ledger, branch: int, step: int, index: int) -> dict[str, Any] | None:
    """One group that votes, with its vote, its label and the extra samples made for it; None where there is none. Completions: see `completions`."""
    for entry in segments_of(ledger, branch, step):
        found = ledger.rows(entry, "groups", GROUP)
        rows = [in_full({name: values[at] for name, values in found.items()}) for at in range(len(found["group_index"]))]
        chosen = next((row for row in rows if row["group_index"] == index and row["role"] == "vote"), None)
        if chosen is not None:
            extras = [row for row in rows if row["serves"] == index and row["role"] != "vote"]
            return {"branch": branch, "step": step, "size": sum(row["role"] == "vote" for row in rows), "extras": extras, **chosen}
    return None


def in_full(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its votes and messages as pairs."""
    votes = [{"key": key, "count": count} for key, count in zip(row.pop("vote_keys"), row.pop("vote_counts"), strict=True)]
    messages = [{"role": role, "content": text} for role, text in zip(row.pop("message_roles"), row.pop("message_contents"), strict=True)]
    return {"votes": votes, "messages": messages, **row}


def completions(ledger: Ledger, place: tuple[int, int, int], cluster: str | None, offset: int, limit: int) -> dict[str, Any]:
    """Some completions of a group, in order. cluster: only those with this key; the empty text: only those without an answer; None: all."""
    branch, step, index = place
    for entry in segments_of(ledger, branch, step):
        found = ledger.rows(entry, "completions", COMPLETION)
        mine = [at for at, group_index in enumerate(found["group_index"]) if group_index == index]
        if not mine:
            continue
        fits = [at for at in mine if cluster is None or (found["answer_key"][at] or "") == cluster]
        chosen = [{name: values[at] for name, values in found.items()} for at in fits[offset : offset + limit]]
        return {"total": len(fits), "completions": [in_parts(one) for one in chosen]}
    return {"total": 0, "completions": []}


def segments_of(ledger: Ledger, branch: int, step: int) -> list[Entry]:
    return [entry for entry in ledger.entries if entry.kind == "segment" and (entry.branch, entry.step) == (branch, step)]


def in_parts(row: dict[str, Any]) -> dict[str, Any]:
    """A completion with its text in three parts, the answer in the middle: the page needs no offsets. Without an answer all of it is the first part."""
    text, answer = row.pop("text"), row["answer_text"]
    row["num_tokens"] = len(row.pop("token_ids"))
    start, end = answer_place(text, answer)
    return row | {"before": text[:start], "answer": text[start:end], "after": text[end:]}


def answer_place(text: str, answer: str | None) -> tuple[int, int]:
    """Where the answer that was read stands in a completion; an empty place at its end where it has none."""
    if answer:
        span = extract_span(text)
        if span is not None and span.text == answer:
            return span.start, span.end
        at = text.rfind(answer)
        if at >= 0:
            return at, at + len(answer)
    return len(text), len(text)
