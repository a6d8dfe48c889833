"""`selftrain report`"""

from __future__ import annotations

import click


@click.command("report")
@click.argument("runs", type=click.Path(), metavar="RUN...", nargs=-1, required=True)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(runs: tuple[str, ...]) -> None:
    """Write report.html and report.md into run folders.

    RUN is a run's folder: finished, halted, interrupted or still running. The page opens from disk, needs no network and prints well.
    """
    from selftrain import report
    from selftrain.cli.running import folder_of

    for run in runs:
        written = report.write_report(folder_of(run))
        click.echo(written.html)
        click.echo(written.markdown)
