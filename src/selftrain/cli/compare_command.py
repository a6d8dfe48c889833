"""`selftrain compare`"""

from __future__ import annotations

from typing import Any

import click

from selftrain.cli.options import ConfigCommand, config_files, config_options, overrides

LISTS = ("--sources", "--seeds", "--models")
"""options that take several values in a row, up to the next option"""


class CompareCommand(ConfigCommand):
    """`--seeds 0 1 2` is `--seeds 0 --seeds 1 --seeds 2`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        expanded: list[str] = []
        current = None
        for at, word in enumerate(args):
            if word.startswith("-"):
                current = word if word in LISTS else None
                if current is not None and (at + 1 == len(args) or args[at + 1].startswith("-")):
                    raise click.BadOptionUsage(current, f"Option {current!r} needs at least one value.", ctx)
                if current is None:
                    expanded.append(word)
            else:
                expanded += [current, word] if current else [word]
        return super().parse_args(ctx, expanded)


@click.command(
    "compare", cls=CompareCommand, epilog="Without a model in the files or options, the recipe of the embedded model applies (recipes/embedded.toml)."
)
@click.argument("files", nargs=-1, type=click.Path(), metavar="[CONFIG.toml]...")
@click.option("--sources", multiple=True, metavar="NAME...", help="Who decides, as in labels.source; NAME=FILE.toml is a variant: a named layer of options.")
@click.option("--seeds", multiple=True, type=click.IntRange(min=0), metavar="SEED...", help="Seeds of the runs. [default: 0 1 2]")
@click.option("--models", multiple=True, metavar="MODEL...", help="Starts, as in policy.model. [default: the config's]")
@click.option("--controls", is_flag=True, help="Add random, format_only and inverted, and reference where the prompts have true answers.")
@click.option(
    "--folder", type=click.Path(), help="Where the runs and the table go; what is finished there is kept. [default: compare-0001, ... in run.folder's runs]"
)
@click.option("--only-report", type=click.Path(), metavar="FOLDER", help="Run nothing: make the table of that comparison again from its runs.")
@click.option("--log", type=click.Choice(("rich", "plain", "json")), help="Live display, lines, or JSON lines. [default: rich on a terminal, else plain]")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
@config_options(without=("run.name", "run.folder", "run.seed", "policy.model", "labels.source"))
def command(files: tuple[str, ...], folder: str | None, only_report: str | None, log: str | None, **given: Any) -> int:
    """Compare label sources: each runs from each start with each seed, on the same prompts and budget.

    Every run is an ordinary run in the comparison's folder. The same command again goes on where it was interrupted; more sources, seeds or starts may be
    added. Config files stand before --sources, --seeds and --models, which take values up to the next option. Writes comparison.md, .html, .csv and .json.
    """
    from selftrain.cli.comparing import compare, report
    from selftrain.comparing import Choice, make_plan
    from selftrain.errors import ConfigError
    from selftrain.ledger.objects import place

    sources, seeds, models, controls = (given.pop(name) for name in ("sources", "seeds", "models", "controls"))
    if only_report is not None:
        if files or sources or seeds or models or controls or folder or overrides(given):
            why = "it runs nothing, and what was compared is written down in its folder"
            raise ConfigError(f"--only-report {only_report} with other options", why, "Leave the others out.")
        return report(place(only_report), log)
    choice = Choice(sources, seeds or Choice().seeds, models, controls)
    return compare(make_plan(config_files(files), overrides(given), choice, place(folder) if folder else None), log)
