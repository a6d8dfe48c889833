"""`selftrain evaluate`"""

from __future__ import annotations

from typing import Any

import click

from selftrain.cli.options import ConfigCommand, config_options, overrides

OPTIONS = (
    "evals.file",
    "evals.task",
    "evals.num_problems",
    "evals.num_samples",
    "evals.temperature",
    "evals.top_p",
    "policy.",
    "prompts.prompt_field",
    "prompts.answer_field",
    "prompts.template",
    "rollout.max_new_tokens",
    "rollout.stop",
    "rollout.cache_mib",
    "run.seed",
    "correction.",
)


@click.command("evaluate", cls=ConfigCommand)
@click.argument("models", nargs=-1, metavar="[MODEL|RUN]...")
@click.option(
    "--log", type=click.Choice(("rich", "plain", "json")), help="Tables with a progress bar, tables, or JSON. [default: rich on a terminal, else plain]"
)
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options(*OPTIONS, without=("policy.model", "policy.lora_rank", "policy.lora_alpha", "policy.gradient_checkpointing"))
def command(models: tuple[str, ...], log: str | None, **options: Any) -> None:
    """avg@k, maj@k, pass@k and pseudo-label accuracy of models, with 95 % intervals.

    MODEL is embedded:default, embedded:weak, a Hugging Face folder or a hub id; RUN is a run's folder and stands for the checkpoint it hands over.
    Several are compared on the same problems and random numbers, each with its paired difference to the first. Without problems in the options, those
    of the first RUN are taken, else the embedded model's.
    """
    from selftrain.cli.evaluating import evaluate_all

    evaluate_all(models or ("embedded:default",), overrides(options), log)
