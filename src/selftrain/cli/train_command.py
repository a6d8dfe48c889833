"""`selftrain train`"""

from __future__ import annotations

from typing import Any

import click

from selftrain.cli.options import ConfigCommand, config_files, config_options, overrides


@click.command("train", cls=ConfigCommand, epilog="Without a model in the files or options, the recipe of the embedded model applies (recipes/embedded.toml).")
@click.argument("files", nargs=-1, type=click.Path(), metavar="[CONFIG.toml]...")
@click.option("--log", type=click.Choice(("rich", "plain", "json")), help="Live display, lines, or JSON lines. [default: rich on a terminal, else plain]")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options()
def command(files: tuple[str, ...], log: str | None, **options: Any) -> int:
    """Self-train a model on prompts without answers.

    Options come from the TOML files, left to right, and then from the command line; the last one wins. Without any, the embedded model trains on
    additions. The run folder keeps the record, the checkpoints and the report.
    """
    from selftrain.cli.display import display_of
    from selftrain.cli.running import do
    from selftrain.config_load import load_config
    from selftrain.run import start

    return do(start(load_config(config_files(files), overrides(options))), display_of(log), resumed=False).status
