"""`selftrain profile`"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from selftrain.cli.options import ConfigCommand, config_files, config_options, overrides

if TYPE_CHECKING:
    from selftrain.profile import Profile
    from selftrain.train import StepReport


@click.command("profile", cls=ConfigCommand)
@click.argument("files", nargs=-1, type=click.Path(), metavar="[CONFIG.toml]...")
@click.option("--steps", type=click.IntRange(1), default=3, show_default=True, help="Steps that are measured.")
@click.option("--warmup", type=click.IntRange(0), default=1, show_default=True, help="Steps before them that are not.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object instead of the table.")
@click.option("--keep", is_flag=True, help="Keep the run folder in run.folder; otherwise nothing is left behind.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options(without=("run.num_steps", "run.checkpoint_every_steps"))
def command(files: tuple[str, ...], steps: int, warmup: int, as_json: bool, keep: bool, **options: Any) -> None:
    """Where the time of a training step goes: stages, tokens a second, memory, and the arithmetic floor.

    Runs a few steps with the options of `train`, without evaluations. The floor is 2 operations a weight and sampled token and 6 a weight and trained
    token, prompts counted once, at the rate of matrix products measured here.
    """
    import json

    from selftrain.config_load import load_config
    from selftrain.profile import profile

    found = profile(load_config(config_files(files), overrides(options)), steps, warmup, null_display(), keep)
    if as_json:
        click.echo(json.dumps(found.to_json()))
    else:
        for line in table(found):
            click.echo(line)


def null_display() -> Callable[[StepReport], None]:
    """The live display drawn once a step on a terminal that nobody sees."""
    from rich.console import Console

    from selftrain.cli.live import Live

    live = Live(Console(file=io.StringIO(), force_terminal=True, width=100))

    def show(report: StepReport) -> None:
        live.step(report)
        live.console.print(live.render())

    return show


def table(found: Profile) -> list[str]:
    """The profile for people."""
    measured = f"{found.num_steps} step{'s' if found.num_steps > 1 else ''}"
    lines = [f"Mean of {measured}: {found.step_s:.3f} s a step", "", f"{'stage':<16}{'seconds':>10}{'share':>9}"]
    for stage, seconds in found.seconds.items():
        lines.append(f"{stage:<16}{seconds:>10.4f}{100 * seconds / found.step_s:>7.1f} %")
        if stage == "sample":
            lines += [f"  {name:<14}{part:>10.4f}{100 * part / found.step_s:>7.1f} %" for name, part in found.parts.items()]
    lines += [f"{'all but sampling, scoring and updating':<26}: {100 * found.overhead_frac:.1f} %", ""]
    lines.append(f"sampled    {found.sampled_tokens:,.0f} tokens a step, {found.sampled_tokens / found.seconds['sample']:,.0f} a second")
    rate = found.trained_tokens / found.seconds["update"] if found.trained_tokens else 0.0
    lines.append(f"trained    {found.trained_tokens:,.0f} tokens a step, {rate:,.0f} a second")
    lines += [f"memory     {size / 2**20:,.0f} MiB at most, {name.removesuffix('_bytes')}" for name, size in found.memory.items()]
    if found.gap_nats is not None:
        lines.append(f"gap        {found.gap_nats:.2g} nats between the learner's and the sampler's log-probabilities")
    if found.floor is not None:
        floor = found.floor
        made_of = f"sample {floor.sample_s:.3f}, update {floor.update_s:.3f}"
        lines.append(f"floor      {floor.step_s:.3f} s ({made_of}): {floor.weights:,} weights, {floor.rate / 1e9:,.0f} GFLOP/s")
        lines.append(f"           the step takes {found.step_s / floor.step_s:.1f} times that")
    if found.folder is not None:
        lines.append(f"run folder {found.folder}")
    return lines
