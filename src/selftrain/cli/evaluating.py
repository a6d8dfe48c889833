"""Evaluate models side by side and show the table."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from selftrain.cli.json_lines import interval, measured
from selftrain.cli.tables import WIDE, fits, number_column
from selftrain.config import RunConfig
from selftrain.config_load import load_config, recipe
from selftrain.evals import Evaluation
from selftrain.evaluate_model import check_unseen, evaluate_on, is_run, problems_of
from selftrain.ledger import read
from selftrain.ledger.objects import place
from selftrain.report import words
from selftrain.report.comparison import differences, measures
from selftrain.run import read_config
from selftrain.run_folder import relocated
from selftrain.types import PromptSet

Results = list[tuple[str, Evaluation]]


def evaluate_all(models: Sequence[str], given: Mapping[str, Any], log: str | None) -> None:
    """What was measured before an error, of a model that cannot be loaded for example, is shown before it is raised."""
    config = config_of(models, given)
    problems = problems_of(config)
    for model in models:
        check_unseen(config, problems, model)
    results: Results = []
    try:
        evaluate_each(models, config, problems, log, results)
    finally:
        if results and log == "json":
            click.echo(json.dumps(as_json(results)))
        elif results:
            show(results)


def evaluate_each(models: Sequence[str], config: RunConfig, problems: PromptSet, log: str | None, results: Results) -> None:
    """One after the other, into `results`."""
    shows_bar = log == "rich" or (log is None and sys.stderr.isatty())
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, disable=not shows_bar) as progress:
        for model in models:
            task = progress.add_task(f"evaluating {model}", total=config.evals.num_problems)
            shown = partial(show_progress, progress, task)
            results.append((model, evaluate_on(problems, config, model, shown)))


def show_progress(bars: Progress, task: TaskID, done: int, whole: int) -> None:
    bars.update(task, completed=done, total=whole)


def config_of(models: Sequence[str], given: Mapping[str, Any]) -> RunConfig:
    """The problems and how they are sampled: options over the first run among the models, over the embedded model's recipe."""
    run = next((place(model) for model in models if is_run(model)), None)
    base: dict[str, Any] = {}
    if run is not None:
        base = flat(relocated(read_config(run), Path(read(run).environment["cwd"])).model_dump())
        del base["run.name"], base["run.folder"]  # no run is made here, and a folder may have got a name that a new run may not have
    elif any(model.startswith("embedded:") for model in models):
        base = flat(recipe("embedded"))
    for one, other in (("evals.file", "evals.task"), ("evals.task", "evals.file")):
        if one in given:
            base.pop(other, None)
    merged = {**base, "policy.model": models[0] if run is None else base["policy.model"], **given}
    if not any(merged.get(f"prompts.{source}") is not None for source in ("file", "dataset", "task")):
        source = "file" if merged.get("evals.file") else "task"  # a config needs prompts to train on; an evaluation reads the problems only
        merged[f"prompts.{source}"] = merged.get(f"evals.{source}")
    return load_config((), {name: value for name, value in merged.items() if value is not None})


def flat(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {f"{section}.{field}": value for section, values in sections.items() for field, value in values.items()}


def show(results: Results) -> None:
    """Tables on stdout, wide enough for what they hold: nothing is cut where stdout is no terminal."""
    first = results[0][1]
    console = Console() if sys.stdout.isatty() else Console(width=WIDE)
    click.echo(f"{len(first.results)} problems of {first.origin}, {first.num_samples} completions each, temperature {first.temperature:g}")
    names = list(measures(first))
    print_table(console, "percent [95 % interval]", names, [(model, [words.percent(value) for value in measures(one).values()]) for model, one in results])
    if len(results) > 1:
        pairs = [(model, differences(first, one)) for model, one in results[1:]]
        rows = [(model, [words.points(found.get(name)) for name in names[:3]]) for model, found in pairs]
        print_table(console, f"paired difference to {results[0][0]} [95 % interval]", names[:3], rows)


def print_table(console: Console, title: str, names: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> None:
    """A line a model instead where the console is too narrow for the table."""
    made = Table(title=escape(title), title_justify="left", title_style="dim", box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    made.add_column("model", overflow="fold")
    shown = [(model, [cell.replace(" %", "").replace(" points", "") for cell in cells]) for model, cells in rows]
    for at, name in enumerate(names):
        number_column(made, name, [cells[at] for _, cells in shown])
    for model, cells in shown:
        made.add_row(escape(model), *cells)
    if fits(console, made):
        console.print(made)
        return
    console.print(title, style="dim", highlight=False, markup=False)
    for model, cells in shown:
        console.print(f"{model}: {', '.join(f'{name} {cell}' for name, cell in zip(names, cells, strict=True))}", highlight=False, markup=False)


def as_json(results: Results) -> dict[str, Any]:
    first = results[0][1]
    return {
        "models": [{"model": model, **measured(one)} for model, one in results],
        "differences_to_first": [
            {"model": model, "measures": {name: interval(value) for name, value in differences(first, one).items()}} for model, one in results[1:]
        ],
    }
