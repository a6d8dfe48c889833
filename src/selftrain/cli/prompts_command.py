"""`selftrain prompts`"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from selftrain.cli.options import ConfigCommand, config_files, config_options, overrides

if TYPE_CHECKING:
    from selftrain.types import PromptSet


@click.command("prompts", cls=ConfigCommand)
@click.argument("files", nargs=-1, type=click.Path(), metavar="[CONFIG.toml]...")
@click.option("--show", default=3, show_default=True, type=click.IntRange(min=0), help="How many prompts to show.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options("prompts.", "evals.file", "evals.task", "evals.num_problems", "policy.model", "run.seed", "rollout.prompts_per_step")
def command(files: tuple[str, ...], show: int, **options: Any) -> None:
    """Show the prompts that a run would train on, and check them.

    Takes the files and options of `selftrain train` and does what a run does before its first sample: reads the prompts and the held-out problems, and
    checks that they share nothing. True answers are counted, never shown.
    """
    from selftrain.compose import load_sets
    from selftrain.config_load import load_config

    sets = load_sets(load_config(config_files(files), overrides(options)))
    describe("training prompts", sets.train)
    if sets.held_out is not None:
        describe("held-out problems", sets.held_out)
    for prompt in sets.train.prompts[:show]:
        click.echo(f"\n{click.style(prompt.id, bold=True)}")
        for message in prompt.messages:
            click.echo(f"{message.role}: {message.content}")


def describe(name: str, found: PromptSet) -> None:
    from selftrain.prompts import prompt_set_hash

    answered = sum(prompt.id in found.sheet for prompt in found)
    click.echo(f"{name}: {len(found):,} of {found.origin}, {answered:,} with a true answer, hash {prompt_set_hash(found)[:16]}")
