"""The display without a terminal: one line for everything that happens."""

from __future__ import annotations

from typing import Self

from selftrain.cli import messages
from selftrain.cli.progress import TimeLeft, guard_state, step_words
from selftrain.control import visible
from selftrain.events import Taken
from selftrain.report import Report, RunRecord, words
from selftrain.run import Evaluated, Outcome, RolledBack, Run
from selftrain.train import StepReport


class Plain:
    """Lines on stdout, each flushed at once."""

    def __init__(self) -> None:
        self._time_left = TimeLeft()
        self._num_steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def begin(self, run: Run, resumed: bool) -> None:
        self._num_steps = run.config.run.num_steps
        for line in messages.opening(run, resumed):
            say(line)

    def evaluated(self, event: Evaluated) -> None:
        say(f"evaluated {event.name}: {messages.evaluation_words(event)}")

    def step(self, report: StepReport) -> None:
        done = report.metrics.step + 1
        self._time_left.add(sum(report.seconds.values()))
        left = words.duration(self._time_left.seconds(self._num_steps - done) or 0.0)
        say(f"{done}/{self._num_steps}  step {report.metrics.step}  {step_words(report.metrics)}  guard {guard_state(report.verdict)}  left {left}")
        for finding in report.verdict.findings:
            say(f"  guard: {words.finding_words(finding)}")

    def taken(self, event: Taken) -> None:
        say(messages.taken_words(event.request))

    def rolled_back(self, event: RolledBack) -> None:
        say(messages.rolled_back_words(event.record))

    def note(self, words: str) -> None:
        say(words)

    def end(self, outcome: Outcome, record: RunRecord, report: Report | None) -> None:
        if outcome.reason == "interrupted":
            for line in messages.interrupted(outcome):
                say(line)
            return
        for row in messages.outcome_rows(outcome):
            say(messages.row_words(row))
        for line in messages.verdict(record):
            say(line)
        for what, where in messages.places(outcome, report):
            say(f"{what}: {where}" if what else f"  {where}")
        say("Next:")
        for line, meaning in messages.next_commands(record):
            say(f"  {line}  # {meaning}")


def say(line: str) -> None:
    print(visible(line), flush=True)
