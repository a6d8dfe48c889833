"""One run as the page sees it: its chain is read on as it grows, never from the start again."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from threading import RLock
from typing import Any

from selftrain.checkpoints import names as checkpoint_names
from selftrain.checkpoints import place_of
from selftrain.errors import SelftrainError
from selftrain.evals import Evaluation
from selftrain.handover import START, VALIDATED
from selftrain.ledger import Ledger, open_record
from selftrain.metrics import METRICS
from selftrain.report.comparison import measures
from selftrain.watch.groups import GroupIndex
from selftrain.watch.series import columns, finite, spark

QUIET_S = 60.0
QUIET_STEPS = 5
"""a chain that grew within so many seconds, or within the time of so many of its steps, is being written, where its lock cannot be seen from here: by
another machine on a shared folder"""
SHOWN = ("vote/share_mean_frac", "reward/mean_frac", "policy/entropy_mean_nats", "completion/length_mean_tokens", "admission/admitted_frac")


class RunTail:
    """A run folder, read on by `advance`. Safe to use from several threads; raises what `ledger.read` raises."""

    def __init__(self, run_id: str, folder: Path) -> None:
        self.id, self.folder = run_id, folder
        self.lock = RLock()
        self.generation = 0
        self._begin()
        self.advance()

    def _begin(self) -> None:
        self.ledger: Ledger = open_record(self.folder)
        self.steps: list[tuple[int, int, Mapping[str, float]]] = []
        self.verdicts: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.end: Mapping[str, Any] | None = None
        self.index = GroupIndex(self.ledger)
        self._evals: tuple[tuple[int, int], list[dict[str, Any]]] = ((-1, 0), [])

    def advance(self) -> int:
        """Take in what was recorded since; returns how many records there are. A record that does not go on where it ended (a fork) is read anew."""
        with self.lock:
            try:
                lines = self.ledger.advance()
            except SelftrainError:
                self.generation += 1
                self._begin()
                lines = self.ledger.advance()
            branch = self.ledger.entries[-len(lines)].branch if lines else 0
            for line in lines:
                body: Mapping[str, Any] = line.body
                if line.kind == "branch":
                    branch = body["branch"]
                elif line.kind == "step":
                    self.steps.append((branch, body["step"], body["metrics"]))
                elif line.kind == "verdict":
                    self.verdicts.append({"branch": branch, **body})
                elif line.kind == "request":
                    self.requests.append({"branch": branch, **body})
                elif line.kind == "end":
                    self.end = body
            return len(self.ledger.entries)

    @property
    def config(self) -> Mapping[str, Any]:
        values: Mapping[str, Any] = self.ledger.header["config"]
        return values

    def state(self) -> dict[str, Any]:
        """What changes while a run goes: where it stands, how it is, the last numbers."""
        with self.lock:
            live = [(step, values) for branch, step, values in self.steps if self.ledger.counts(branch, step)]
            last = live[-1][1] if live else {}
            return {
                "state": self.state_name(),
                "steps_done": live[-1][0] + 1 if live else 0,
                "num_steps": self.config["run"]["num_steps"],
                "branch": len(self.ledger.branches),
                "last": {key: finite(last[key]) for key in SHOWN if key in last},
                "action": self.verdicts[-1]["action"] if self.verdicts else None,
                "handed_over": self.end["handed_over"] if self.end else None,
                "head": self.ledger.head,
                "seq": len(self.ledger.entries),
                "generation": self.generation,
            }

    def state_name(self) -> str:
        """done, halted, paused, stopped, running, or unfinished: nobody writes it, or it cannot be seen who does."""
        if self.end:
            return str(self.end["reason"])
        kinds = [entry.kind for entry in self.ledger.entries[-200:]]
        since = kinds[len(kinds) - 1 - kinds[::-1].index("segment") :] if "segment" in kinds else kinds
        asked = [one["action"] for one in self.requests[len(self.requests) - since.count("request") :] if not one["refused"]] if "request" in since else []
        written, last = self._is_being_written(), next((action for action in reversed(asked) if action in ("pause", "resume", "stop")), "")
        if last == "stop" and not written:
            return "stopped"
        if last == "pause" and written is not False:
            return "paused"
        return "running" if written or (written is None and self._grew_lately()) else "unfinished"

    def _is_being_written(self) -> bool | None:
        """None where it cannot be seen: on a shared folder locks of other machines do not show."""
        locked = self.ledger.is_being_written
        return locked if locked or self.ledger.environment.get("host") == platform.node() else None

    def _grew_lately(self) -> bool:
        try:
            begun, grew = (path.stat().st_mtime for path in (self.folder / "run.json", self.folder / "ledger" / "chain.jsonl"))
        except OSError:
            return False
        return time.time() - grew < max(QUIET_S, QUIET_STEPS * (grew - begun) / max(1, len(self.steps)))

    def summary(self) -> dict[str, Any]:
        """One line of the list of runs."""
        with self.lock:
            evaluations = {one["name"]: one for one in self.evaluations()}
            live = [values.get(SHOWN[0]) for branch, step, values in self.steps if self.ledger.counts(branch, step)]
            return {
                "id": self.id,
                "name": self.folder.resolve().name,
                "model": self.config["policy"]["model"],
                "labels": self.config["labels"]["source"],
                "prompts": self.ledger.header["prompts"]["origin"],
                "label_free": self.ledger.header["label_free"],
                "started": self.ledger.environment.get("started"),
                "spark": spark(live),
                "findings": sum(bool(one["findings"]) for one in self.verdicts),
                "accuracy": {name: evaluations[name]["measures"] for name in ("before", "after") if name in evaluations},
                **self.state(),
            }

    def detail(self) -> dict[str, Any]:
        """Everything about a run but its curves and groups."""
        with self.lock:
            return {
                **self.summary(),
                "config": self.config,
                "environment": self.ledger.environment,
                "class": self.ledger.header["class"],
                "metrics": {name: {"unit": one.unit, "formula": one.formula} for name, one in METRICS.items()},
                "evaluations": self.evaluations(),
                **self.happenings(),
            }

    def happenings(self) -> dict[str, Any]:
        """What stands on the time axis, and where a run could go back to."""
        with self.lock:
            return {
                "verdicts": [one | {"counts": self.ledger.counts(one["branch"], one["step"])} for one in self.verdicts if one["findings"]],
                "requests": self.requests,
                "branches": [asdict(one) for one in self.ledger.branches],
                "checkpoints": self.checkpoints(),
            }

    def checkpoints(self) -> list[dict[str, Any]]:
        """The checkpoints on the disk, oldest first, after `start`.

        counts: whether one belongs to the history of the newest branch, as what that one began with does.
        """
        found: list[dict[str, Any]] = [{"name": START, "branch": 0, "step": 0, "counts": True}]
        for name in checkpoint_names(self.folder / "checkpoints"):
            branch, step = place_of(name) or (-1, -1)
            if branch >= 0:
                counts = self.ledger.counts(branch, max(step - 1, 0)) or self.ledger.lineage.get(branch, (-1, None))[0] == step
                found.append({"name": name, "branch": branch, "step": step, "counts": counts})
        return found

    def evaluations(self) -> list[dict[str, Any]]:
        """Every evaluation on the held-out problems: its name, where it stands, its measures, and how many examples it kept.

        counts: whether it belongs to the history of the newest branch.
        """
        with self.lock:
            return [
                {
                    "name": record["name"],
                    "step": record["step"],
                    "branch": record["branch"],
                    "counts": record["counts"],
                    "num_samples": record["evaluation"]["num_samples"],
                    "num_problems": len(record["evaluation"]["results"]),
                    "num_examples": len(record["evaluation"]["examples"]),
                    "measures": record["measures"],
                }
                for record in self._evaluation_records()
                if not record["name"].startswith(VALIDATED)
            ]

    def example(self, name: str, prompt_id: str | None) -> dict[str, Any]:
        """The examples that an evaluation kept: the ids and texts of all, and one in full. KeyError for an unknown name."""
        record = {one["name"]: one for one in self._evaluation_records()}[name]
        examples = record["evaluation"]["examples"]
        chosen = next((one for one in examples if one["prompt_id"] == prompt_id), None)
        return {"name": name, "step": record["step"], "prompts": [{"id": one["prompt_id"], "text": one["prompt"]} for one in examples], "example": chosen}

    def _evaluation_records(self) -> list[dict[str, Any]]:
        """The recorded evaluations with their measures; read again only when the file has changed or records were added."""
        with self.lock:
            try:
                stamp = ((self.folder / "evals.jsonl").stat().st_size, len(self.ledger.entries))
            except OSError:
                stamp = (0, 0)
            if stamp != self._evals[0]:
                placed = [one for one in self.ledger.placed_evals() if "results" in one[0].get("evaluation", {})]
                records = [record | {"branch": branch, "counts": counts} for record, branch, counts in placed]
                self._evals = (stamp, [one | {"measures": measured(Evaluation.from_json(one["evaluation"]))} for one in records])
            return self._evals[1]

    def curves(self, first: int | None, last: int | None, points: int) -> dict[str, Any]:
        """The metrics of the steps first..last: `live` for the history that counts, `left` one entry for each branch that was rolled back."""
        with self.lock:
            rows = [row for row in self.steps if (first is None or row[1] >= first) and (last is None or row[1] <= last)]
            live = [(step, values) for branch, step, values in rows if self.ledger.counts(branch, step)]
            left: dict[int, list[tuple[int, Mapping[str, float]]]] = {}
            for branch, step, values in rows:
                if not self.ledger.counts(branch, step):
                    left.setdefault(branch, []).append((step, values))
            return {
                "live": columns(live, points),
                "left": [{"branch": branch, **columns(part, points)} for branch, part in left.items()],
                "seq": len(self.ledger.entries),
                "generation": self.generation,
            }

    def changes(self, seq: int) -> dict[str, Any]:
        """What a page that has seen `seq` records needs: the new steps, the state, and what happened."""
        with self.lock:
            fresh = sum(entry.kind == "step" for entry in self.ledger.entries[seq:])
            kinds = {entry.kind for entry in self.ledger.entries[seq:]}
            steps = self.steps[len(self.steps) - fresh :]
            change: dict[str, Any] = {
                "state": self.state(),
                "steps": [{"branch": branch, "step": step, "values": {key: finite(value) for key, value in values.items()}} for branch, step, values in steps],
            }
            found_something = any(one["findings"] for one in self.verdicts[-fresh:]) if fresh else False
            if kinds & {"request", "branch", "checkpoint", "end"} or found_something:
                change["happenings"] = self.happenings()
            return change | {"evaluations": self.evaluations()}


def measured(evaluation: Evaluation) -> dict[str, dict[str, float] | None]:
    """The measures of an evaluation with their intervals."""
    found = measures(evaluation)
    return {name: None if one is None else {"value": one.value, "low": one.low, "high": one.high} for name, one in found.items()}
