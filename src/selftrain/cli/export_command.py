"""`selftrain export`"""

from __future__ import annotations

import click


@click.command("export")
@click.argument("run", type=click.Path())
@click.argument("folder", type=click.Path())
@click.option("--checkpoint", metavar="NAME", help="Export this checkpoint, for example step-000040, instead of the one that is handed over.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(run: str, folder: str, checkpoint: str | None) -> None:
    """Write the model that a run hands over as a Hugging Face folder.

    RUN is the run's folder, FOLDER a new one, a path or a URL (s3://...): weights, config, tokenizer and a model card, without optimizer files.
    `transformers` loads it.
    """
    from selftrain.cli.running import folder_of
    from selftrain.exporting import export

    written = export(folder_of(run), folder_of(folder), checkpoint)
    click.echo(f"{written.folder}: checkpoint {written.checkpoint}, {', '.join(written.files)}")
