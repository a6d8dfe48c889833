"""Do the runs of a comparison one after the other, then show its table."""

from __future__ import annotations

import json
import shlex
import sys
import time

import click
from rich.console import Console
from rich.table import Table

from selftrain.cli.display import display_of
from selftrain.cli.running import do
from selftrain.comparing import Pages, Plan, check_shared, known_cells, measure, open_cell, remember, write_pages
from selftrain.comparing.controls import control_words
from selftrain.ledger import read
from selftrain.ledger.objects import Place
from selftrain.report import words
from selftrain.run_folder import is_there


def compare(plan: Plan, log: str | None) -> int:
    """Every cell as `train` does it. Returns the exit status: 130 or 143 where a signal came while a run was written, even past its last step, else 0."""
    remember_all(plan)
    if said := control_words((cell.source, cell.instead) for cell in plan.cells):
        note(said, log)
    begun, done = time.monotonic(), 0
    for number, (cell, config) in enumerate(plan.cells.items(), 1):
        found = open_cell(cell, config)
        place = f"run {number} of {len(plan.cells)}: {cell.name}"
        if found.run is None:
            note(f"{place}: finished before, kept", log)
        else:
            left = (time.monotonic() - begun) / done * (len(plan.cells) - number + 1) if done else None
            note(f"{place}{f', about {words.duration(left)} left for all' if left else ''}", log)
            ended = do(found.run, display_of(log), found.resumed)
            if not ended.finished or ended.signalled:
                note(f"The comparison goes on by the same command with --folder {shlex.quote(str(plan.folder))}; finished runs are kept.", log)
                return ended.signalled or ended.status
            done += 1
        del found  # with the run its policy: the next one needs the memory
        measure(plan.folder, cell, lambda said: note(said, log))
    show(write_pages(plan.folder), log)
    return 0


def remember_all(plan: Plan) -> None:
    """Write down what is compared, unless what is there already does not go with it."""
    if is_there(plan.folder / "compare.json"):
        check_shared(plan)
    remember(plan)


def report(folder: Place, log: str | None) -> int:
    """The pages of a comparison again, from the folders of its runs."""
    for cell in known_cells(folder):
        if is_there(folder / cell.name) and read(folder / cell.name).finished:
            measure(folder, cell, lambda said: note(said, log))
    show(write_pages(folder), log)
    return 0


def note(said: str, log: str | None) -> None:
    """A line between runs, in the words of the display."""
    if log == "json":
        print(json.dumps({"event": "note", "words": said}), flush=True)
    elif log == "rich" or (log is None and sys.stdout.isatty()):
        Console().print(said, style="bold", highlight=False, markup=False)
    else:
        print(said, flush=True)


def show(pages: Pages, log: str | None) -> None:
    """The summaries; the other tables are in the files."""
    files = {"markdown": pages.markdown, "html": pages.html, "csv": pages.csv, "json": pages.json}
    if log == "json":
        print(json.dumps({"event": "comparison", **{name: str(path) for name, path in files.items()}}), flush=True)
        return
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for start in pages.starts:
        console.print(f"\nFrom {start.start}. {start.base}", highlight=False, markup=False)
        summary = start.grids[0]
        made = Table(title=summary.title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="dim")
        for column in summary.columns:
            made.add_column(column, overflow="fold")
        for row in summary.rows:
            made.add_row(*row)
        console.print(made)
    console.print(pages.notes[0], style="dim", highlight=False, markup=False)
    for line in pages.missing:
        console.print(line, highlight=False, markup=False)
    for name, path in files.items():
        click.echo(f"{name}: {path}")
