"""The display on a terminal: a bar with the time left, and each signal with its course so far."""

from __future__ import annotations

from typing import Self

from rich.console import Console, Group, JustifyMethod, RenderableType
from rich.live import Live as RichLive
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from selftrain.cli import messages
from selftrain.cli.progress import SIGNALS, TimeLeft, guard_state
from selftrain.cli.tables import fits, number_column
from selftrain.control import visible
from selftrain.events import Taken
from selftrain.report import Report, RunRecord, words
from selftrain.run import Evaluated, Outcome, RolledBack, Run
from selftrain.train import StepReport
from selftrain.types import Action, StepMetrics

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII_BLOCKS = "_.:-=+*#"
COURSE_WIDTH = 32
STYLES = {Action.CONTINUE: "green", Action.WARN: "yellow", Action.ROLL_BACK: "bold red", Action.HALT: "bold red"}
REFRESHES_PER_S = 4


class Live:
    """Redraws in place a few times a second; what happens once is printed above and stays."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console()
        self._ascii = self.console.options.ascii_only
        self._time_left = TimeLeft()
        self._steps: list[StepMetrics] = []
        self._guard = Text("waiting", style="dim")
        self._progress = Progress(
            SpinnerColumn("line" if self._ascii else "dots", finished_text=" "),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("[dim]{task.fields[left]}"),
            console=self.console,
        )
        self._task: TaskID = self._progress.add_task("evaluating", total=None, left="")
        self._live = RichLive(get_renderable=self.render, console=self.console, refresh_per_second=REFRESHES_PER_S, transient=True)
        self._num_steps = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def begin(self, run: Run, resumed: bool) -> None:
        self._num_steps = run.config.run.num_steps
        for line in messages.opening(run, resumed):
            self.console.print(escape(line), highlight=False)
        what = "evaluating the start" if run.problems.held_out is not None and not resumed else "first step"
        self._progress.update(self._task, description=what, total=self._num_steps, completed=run.steps_done, left="time left comes with the first step")
        self._live.start()

    def evaluated(self, event: Evaluated) -> None:
        self.console.print(f"[bold]evaluated {event.name}[/]: {escape(messages.evaluation_words(event))}", highlight=False)
        self._progress.update(self._task, description="training")

    def step(self, report: StepReport) -> None:
        done = report.metrics.step + 1
        self._steps.append(report.metrics)
        self._time_left.add(sum(report.seconds.values()))
        left = words.duration(self._time_left.seconds(self._num_steps - done) or 0.0)
        over = done == self._num_steps or report.verdict.action is Action.HALT
        self._progress.update(self._task, completed=done, description="evaluating the end" if over else "training", left="" if over else f"{left} left")
        self._guard = Text(guard_state(report.verdict), style=STYLES[report.verdict.action])
        if report.verdict.findings and report.verdict.action in (Action.HALT, Action.ROLL_BACK):
            for finding in report.verdict.findings:
                self.note(f"guard, step {report.metrics.step}: {words.finding_words(finding)}")

    def taken(self, event: Taken) -> None:
        self.note(messages.taken_words(event.request))
        if event.request.action == "roll_back" and not event.request.refused:
            self._steps.clear()

    def rolled_back(self, event: RolledBack) -> None:
        self.note(messages.rolled_back_words(event.record))
        self._steps.clear()

    def note(self, words: str) -> None:
        self.console.print(escape(visible(words)), style="yellow", highlight=False)

    def end(self, outcome: Outcome, record: RunRecord, report: Report | None) -> None:
        self._live.stop()
        self.console.print(self.signal_table())
        if outcome.reason == "interrupted":
            for line in messages.interrupted(outcome):
                self.console.print(escape(line), highlight=False)
            return
        if outcome.before is not None:
            self.console.print()
            table = outcome_table(outcome)
            if fits(self.console, table):
                self.console.print(table)
            else:
                for row in messages.outcome_rows(outcome):
                    self.console.print(escape(messages.row_words(row)), highlight=False)
            self.console.print()
        for line in messages.verdict(record):
            self.console.print(escape(visible(line)), highlight=False)
        self.console.print()
        for what, where in messages.places(outcome, report):
            self.console.print(Text.assemble((f"{what:12}", "dim"), where), soft_wrap=True)
        self.console.print("\nNext:")
        for line, meaning in messages.next_commands(record):
            self.console.print(Text(f"  {line}", style="bold"), soft_wrap=True)
            self.console.print(Text(f"      {meaning}", style="dim"))

    def render(self) -> RenderableType:
        return Group(self.signal_table(), self._progress) if self._steps else self._progress

    def signal_table(self) -> Table:
        """Each signal: now, at the first step shown, and its course."""
        table = Table(box=None, pad_edge=False, show_header=bool(self._steps), header_style="dim")
        for name in ("signal", "now", "first", "course"):
            justify: JustifyMethod = "right" if name in ("now", "first") else "left"
            table.add_column(name, no_wrap=True, justify=justify, overflow="crop" if self._ascii else "ellipsis")
        if self._steps:
            for signal in SIGNALS:
                values = [step.values[signal.key] for step in self._steps if signal.key in step.values]
                drawn = course(values, blocks=ASCII_BLOCKS if self._ascii else BLOCKS)
                row = (signal.text(self._steps[-1].values), Text(signal.text(self._steps[0].values), style="dim"), Text(drawn, style="cyan"))
                table.add_row(signal.name, *row)
            table.add_row("guard", self._guard)
        return table


def outcome_table(outcome: Outcome) -> Table:
    """At most 80 columns wide."""
    title = "Held-out problems: percent [95 % interval], differences in points"
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
    table.add_column("measure")
    rows = messages.outcome_rows(outcome)
    befores, afters = ([words.percent(one).replace(" %", "") for one in column] for column in zip(*((row.before, row.after) for row in rows), strict=True))
    differences = [words.points(row.difference).replace(" points", "") for row in rows]
    for name, cells in (("before", befores), ("after", afters), ("difference", differences)):
        number_column(table, name, cells)
    for row, before, after, difference in zip(rows, befores, afters, differences, strict=True):
        sign = 0 if row.difference is None or not row.difference.excludes_zero else 1 if row.difference.value > 0 else -1
        table.add_row(row.name, before, after, Text(difference, style={0: "", 1: "green", -1: "red"}[sign]))
    return table


def course(values: list[float], width: int = COURSE_WIDTH, blocks: str = BLOCKS) -> str:
    """The course of a signal in one character each, lowest to highest value seen; long ones are averaged down to the width."""
    if not values:
        return ""
    size = max(1, -(-len(values) // width))
    means = [sum(part) / len(part) for part in (values[i : i + size] for i in range(0, len(values), size))]
    low, high = min(means), max(means)
    if high - low < 1e-12:
        return blocks[0] * len(means)
    return "".join(blocks[round((value - low) / (high - low) * (len(blocks) - 1))] for value in means)
