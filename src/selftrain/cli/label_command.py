"""`selftrain label`"""

from __future__ import annotations

from typing import Any

import click

from selftrain.cli.options import ConfigCommand, config_files, config_options, overrides

OPTIONS = (
    "run.seed",
    "policy.",
    "prompts.",
    "rollout.num_votes",
    "rollout.max_new_tokens",
    "rollout.temperature",
    "rollout.stop",
    "rollout.cache_mib",
    "rollout.prompts_per_step",
    "labels.clustering",
    "labels.min_read_frac",
    "labels.min_share_frac",
    "vllm.",
    "evals.file",
    "evals.task",
    "evals.num_problems",
)


@click.command("label", cls=ConfigCommand, epilog="Without a model in the files or options, the recipe of the embedded model applies (recipes/embedded.toml).")
@click.argument("files", nargs=-1, type=click.Path(), metavar="[CONFIG.toml]...")
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="File of the labels; what is in it of the same command is kept. [default: stored.file]"
)
@click.option(
    "--log", type=click.Choice(("rich", "plain", "json")), help="Summary with a progress bar, summary, or JSON. [default: rich on a terminal, else plain]"
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options(*OPTIONS, without=("policy.lora_rank", "policy.lora_alpha", "policy.gradient_checkpointing"))
def command(files: tuple[str, ...], out: str | None, log: str | None, **given: Any) -> int:
    """Label the training prompts by the vote of a model, once and for all: labels.source = stored trains on them.

    Takes the files and options of `selftrain train`. policy.model votes, which need not be the model that is trained: rollout.num_votes completions of
    every prompt, one JSON line each, with the winner, its share and all votes. No true answer is in the file. The same command again goes on where it
    was interrupted or killed, and the file is then the same as that of an uninterrupted one.
    """
    from selftrain.cli.labelling import write_labels
    from selftrain.config_load import load_config

    chosen = {**overrides(given), "labels.source": "majority"}  # a file holds the model's own votes, whatever source a run then takes
    return write_labels(load_config(config_files(files), chosen), out, log)
