"""The display for programs: one JSON object a line, `event` first. Numbers are those of the ledger, fractions in [0, 1]."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Self

from selftrain.cli import messages
from selftrain.evals import Evaluation, Interval
from selftrain.events import Taken
from selftrain.ledger import read
from selftrain.report import Report, RunRecord
from selftrain.report.comparison import measures
from selftrain.run import Evaluated, Outcome, RolledBack, Run
from selftrain.train import StepReport


class JsonLines:
    """Objects on stdout, each flushed at once."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def begin(self, run: Run, resumed: bool) -> None:
        header = read(run.folder).header
        refused = [{"checkpoint": one.name, "reason": one.reason} for one in run.refused]
        say("start", folder=str(run.folder), resumed=resumed, steps_done=run.steps_done, refused=refused, header=header)

    def evaluated(self, event: Evaluated) -> None:
        say("evaluation", name=event.name, step=event.step, **measured(event.evaluation))

    def step(self, report: StepReport) -> None:
        verdict = report.verdict
        say(
            "step",
            step=report.metrics.step,
            version=str(report.metrics.version),
            metrics=dict(report.metrics.values),
            guard={
                "action": verdict.action.value,
                "findings": [asdict(one) for one in verdict.findings],
                "health": None if verdict.health is None else asdict(verdict.health),
            },
            seconds=dict(report.seconds),
            head=report.head,
        )

    def taken(self, event: Taken) -> None:
        say("request", **asdict(event.request))

    def rolled_back(self, event: RolledBack) -> None:
        say("rollback", **asdict(event.record))

    def note(self, words: str) -> None:
        say("note", words=words)

    def end(self, outcome: Outcome, record: RunRecord, report: Report | None) -> None:
        rows = [
            {"name": row.name, "before": interval(row.before), "after": interval(row.after), "difference": interval(row.difference)}
            for row in messages.outcome_rows(outcome)
        ]
        say(
            "end",
            reason=outcome.reason,
            steps=outcome.steps,
            head=outcome.head,
            handed_over={"name": outcome.handed_over, "path": outcome.path},
            outcome=rows,
            words=messages.interrupted(outcome) if outcome.reason == "interrupted" else messages.verdict(record),
            report={"html": str(report.html), "markdown": str(report.markdown)} if report else None,
            next=[line for line, _ in messages.next_commands(record)],
        )


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


def interval(one: Interval | None) -> dict[str, float] | None:
    return None if one is None else {"value": one.value, "low": one.low, "high": one.high}


def measured(evaluation: Evaluation) -> dict[str, Any]:
    """An evaluation's measures with their intervals, without its problems."""
    return {
        "version": evaluation.version,
        "origin": evaluation.origin,
        "num_problems": len(evaluation.results),
        "num_samples": evaluation.num_samples,
        "measures": {name: interval(value) for name, value in measures(evaluation).items()},
    }
