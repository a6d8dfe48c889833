"""`selftrain query`"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("query")
@click.argument("run", type=click.Path(), required=False)
@click.argument("sql", required=False)
@click.option("--named", metavar="NAME", help="Ask one of the named questions instead of SQL, for example most-changed-labels.")
@click.option("--list", "lists", is_flag=True, help="Show the views with their columns and the named questions; with --named, the SQL of that one.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "csv", "json", "parquet")),
    help="How the rows are written. [default: by the ending of --output, else table]",
)
@click.option("--output", type=click.Path(), metavar="FILE", help="Write to this file instead of stdout; parquet needs one.")
@click.option("--max-rows", type=click.IntRange(min=1), default=40, help="Rows of a table that are shown; other forms always have all. [rows; default: 40]")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(run: str | None, sql: str | None, named: str | None, lists: bool, form: str | None, output: str | None, max_rows: int) -> None:
    """Ask a run's record with SQL: read-only, no files, no network; also while the run goes on.

    RUN is its folder, SQL one SELECT of DuckDB's SQL over the views prompts, groups, completions, steps, updates, verdicts, findings, evaluations,
    problems, checkpoints, timings, records and config; `-` reads it from stdin. `--list` shows their columns.
    """
    from selftrain.cli import querying
    from selftrain.cli.running import folder_of
    from selftrain.query import open_run

    if lists:
        querying.show_list(named)
        return
    asked = querying.sql_of(run, sql, named)
    target = Path(output) if output else None
    with open_run(folder_of(str(run))) as database:
        querying.write(database, asked, querying.form_of(form, target), target, max_rows)
