"""The sentences around a run on the terminal: what starts, what was evaluated, how it ended, what to do next."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from selftrain.ledger import BranchRecord, RequestRecord, read
from selftrain.report import Report, RunRecord, words
from selftrain.report.comparison import Row, rows
from selftrain.run import Evaluated, Outcome, Run


def opening(run: Run, resumed: bool) -> list[str]:
    """What runs, who decides, what is held out, where it is written; when resumed, from where and which checkpoints were refused."""
    header: Mapping[str, Any] = read(run.folder).header
    lines = [words.what_runs(header), words.who_decides(header), words.what_is_held_out(header), f"Run folder: {run.folder}"]
    if resumed:
        start = "the start, to which it went back" if run.ledger.branch else "the start: there is no checkpoint yet"
        lines.append(f"Resumed from {f'step {run.steps_done}' if run.steps_done else start}.")
        lines += [f"Checkpoint {one.name} was refused: {one.reason}." for one in run.refused]
    return lines


def evaluation_words(event: Evaluated) -> str:
    one = event.evaluation
    k = one.num_samples
    found = f"avg@{k} {words.percent(one.avg)}, maj@{k} {words.percent(one.maj)}, pass@{k} {words.percent(one.any_right)}"
    second = one.second_turn
    return found if second is None else f"{found}, second turn {words.percent(second.turn2)}, {words.points(second.gain)} over sampling again"


def taken_words(request: RequestRecord) -> str:
    """A request from outside and what comes of it."""
    why = f": {request.reason}" if request.reason else ""
    asked = f"Request {request.number} by {request.who}, {words.after_steps(request.step)}: {request.action.replace('_', ' ')}"
    asked += f" to {request.checkpoint}{why}" if request.checkpoint else why
    done = {"pause": "The run waits for `resume` from `selftrain watch`; Ctrl-C stops it.", "stop": "Stopping, with a checkpoint."}
    done |= {"overrule": "The guard measures anew from here."}
    return f"{asked}. Not done: {request.refused}." if request.refused else f"{asked}. {done.get(request.action, '')}".strip()


def rolled_back_words(record: BranchRecord) -> str:
    """What the guard has done, and what is different from here on."""
    return f"The guard rolls back: {words.rollback_words(record)}. On from step {record.step}, on branch {record.branch}."


def outcome_rows(outcome: Outcome) -> tuple[Row, ...]:
    return rows(outcome.before, outcome.after) if outcome.before else ()


def row_words(row: Row) -> str:
    return f"{row.name}: before {words.percent(row.before)}, after {words.percent(row.after)}, difference {words.points(row.difference)}"


def interrupted(outcome: Outcome) -> list[str]:
    return [
        f"Stopped {words.after_steps(outcome.steps)}; everything up to here is kept in checkpoint {outcome.handed_over}.",
        f"Go on with: selftrain resume {shlex.quote(str(outcome.folder))}",
    ]


def verdict(record: RunRecord) -> list[str]:
    """How the run ended, in plain words."""
    status = words.status_words(record)
    return [f"{status[0].upper()}{status[1:]}.", *words.verdict_sentences(record)]


def places(outcome: Outcome, report: Report | None) -> list[tuple[str, str]]:
    """(what, where): the model that is handed over, the report, the ledger's head to keep elsewhere."""
    found = [("model", outcome.path)]
    if report is not None:
        found += [("report", str(report.html)), ("", str(report.markdown))]
    return [*found, ("ledger head", outcome.head)]


def next_commands(record: RunRecord) -> list[tuple[str, str]]:
    return words.next_commands(record.config, str(record.folder), record.handed_over)
