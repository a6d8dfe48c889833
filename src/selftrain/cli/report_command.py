"""`selftrain report`"""

from __future__ import annotations

import click


@click.command("report")
@click.argument("runs", type=click.Path(), metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--output", type=click.Path(), metavar="FOLDER", help="Where comparison.html and comparison.md of several runs go. [default: beside the first run's folder]"
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(runs: tuple[str, ...], output: str | None) -> None:
    """Write report.html and report.md into run folders.

    RUN is a run's folder: finished, halted, interrupted or still running. The page opens from disk, needs no network and prints well.
    Several runs are also compared side by side, on the same problems and paired with the first of them: give a control first, for example a run with
    true answers or without the guard.
    """
    from selftrain import report
    from selftrain.cli.running import folder_of
    from selftrain.errors import ConfigError

    if output is not None and len(runs) < 2:
        raise ConfigError(f"--output {output}", "a single report stands in its run's folder", "Leave it out, or give several runs to compare.")
    for run in runs:
        written = report.write_report(folder_of(run))
        click.echo(written.html)
        click.echo(written.markdown)
    if len(runs) > 1:
        compared = report.write_comparison([folder_of(run) for run in runs], folder_of(output) if output else folder_of(runs[0]).parent)
        click.echo(compared.html)
        click.echo(compared.markdown)
