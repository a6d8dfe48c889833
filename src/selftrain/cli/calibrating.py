"""Calibrate with a progress bar, write the pages, show the tables."""

from __future__ import annotations

import json
import sys

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from selftrain.calibration import calibrate, write_pages
from selftrain.calibration.pages import Table as Shown
from selftrain.calibration.pages import shown_of
from selftrain.config import RunConfig
from selftrain.ledger.objects import Place, place
from selftrain.run_folder import is_there


def show(config: RunConfig, count: int, with_truth: bool, folder: str | None, log: str | None) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    shows_bar = log == "rich" or (log is None and sys.stderr.isatty())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shows_bar) as progress:
        bar = progress.add_task(f"sampling {config.policy.model}", total=None)
        found = calibrate(config, count, with_truth, lambda done, whole: progress.update(bar, completed=done, total=whole))
    pages = write_pages(place(folder) if folder else free_folder(place(config.run.folder)), found)
    files = {"markdown": str(pages.markdown), "html": str(pages.html), "json": str(pages.json)}
    if log == "json":
        click.echo(json.dumps({**found.to_json(), "files": files}))
        return
    shown = shown_of(found)
    console = Console() if sys.stdout.isatty() else Console(width=160)
    for line in (shown.title, *shown.lead):
        console.print(line, highlight=False, markup=False)
    for table in (*shown.tables, *shown.known):
        console.print()
        console.print(drawn(table))
    if shown.no_truth:
        console.print(f"\nNot compared with the truth: {shown.no_truth}.", highlight=False, markup=False)
    for line in shown.notes:
        console.print(line, style="dim", highlight=False, markup=False)
    for name, path in files.items():
        click.echo(f"{name}: {path}")


def drawn(table: Shown) -> Table:
    made = Table(title=table.title, title_justify="left", title_style="bold", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for column in table.columns:
        made.add_column(column, overflow="fold")
    for row in table.rows:
        made.add_row(*row)
    return made


def free_folder(parent: Place) -> Place:
    """calibrate-0001, calibrate-0002, ...: the first that is not there."""
    number = 1
    while is_there(parent / f"calibrate-{number:04d}"):
        number += 1
    return parent / f"calibrate-{number:04d}"
