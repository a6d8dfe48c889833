"""`selftrain calibrate`"""

from __future__ import annotations

from typing import Any

import click

from selftrain.cli.options import ConfigCommand, config_files, config_options, overrides


@click.command(
    "calibrate", cls=ConfigCommand, epilog="Without a model in the files or options, the recipe of the embedded model applies (recipes/embedded.toml)."
)
@click.argument("files", nargs=-1, type=click.Path(), metavar="[CONFIG.toml]...")
@click.option("--count", type=click.IntRange(1), default=256, show_default=True, help="How many of the training prompts are looked at, at most.")
@click.option("--no-answers", is_flag=True, help="Read no true answer and ask no verifier, also where there are some: the evidence and the forecast alone.")
@click.option("--folder", type=click.Path(), help="Where the pages go. [default: calibrate-0001, ... in run.folder]")
@click.option(
    "--log", type=click.Choice(("rich", "plain", "json")), help="Tables with a progress bar, tables, or JSON. [default: rich on a terminal, else plain]"
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options(without=("run.name",))
def command(files: tuple[str, ...], count: int, no_answers: bool, folder: str | None, log: str | None, **given: Any) -> None:
    """Before any training: how trustworthy is the proxy of this config, on its model and its prompts?

    Takes the files and options of `selftrain train`, samples the start on some of the training prompts and labels them as the run would. Shows how the votes
    are spread, what the labels would teach and how far a run would move, and from that, without any labels, a forecast whether it gains or loses. Where
    the prompts have true answers or a verifier, a part that says so compares vote share and correctness. Writes calibration.md, .html and .json.
    """
    from selftrain.cli.calibrating import show
    from selftrain.config_load import load_config

    show(load_config(config_files(files), overrides(given)), count, not no_answers, folder, log)
