"""`selftrain resume`"""

from __future__ import annotations

import click


@click.command("resume")
@click.argument("run", type=click.Path())
@click.option("--log", type=click.Choice(("rich", "plain", "json")), help="Live display, lines, or JSON lines. [default: rich on a terminal, else plain]")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(run: str, log: str | None) -> int:
    """Go on with a run that was interrupted or killed.

    RUN is its folder. It starts from the newest sound checkpoint; the steps after it are repeated and must match the record. A damaged checkpoint is
    refused by name and the one before it is used.
    """
    from selftrain.cli.display import display_of
    from selftrain.cli.running import check_outside_code, do, folder_of
    from selftrain.run import resume

    check_outside_code(folder_of(run), goes_on=True)
    return do(resume(folder_of(run)), display_of(log), resumed=True).status
