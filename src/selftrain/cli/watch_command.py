"""`selftrain watch`"""

from __future__ import annotations

from pathlib import Path

import click


@click.command("watch")
@click.argument("folder", type=click.Path(), default="runs", metavar="[RUN_OR_FOLDER]")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to serve on; on any but loopback the page needs the token to show anything.")
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65535), help="Port to serve on; 0 takes a free one.")
@click.option("--open", "opens", is_flag=True, help="Open the page in the web browser.")
@click.option("--debug", is_flag=True, expose_value=False, help="Show the traceback of an error.")
def command(folder: str, host: str, port: int, opens: bool) -> None:
    """A live page of a run, or of all runs in a folder, in the web browser.

    RUN_OR_FOLDER is a run's folder (running, finished, or on a shared disk) or a folder with runs in it; without it, `runs`. The page follows the record
    as it grows. From it a run can be paused, stopped and rolled back: what is asked for is recorded and done between two steps. The link that is printed
    holds a token; without the token the page can only be read. Ctrl-C ends the page, not the run.
    """
    import webbrowser

    from selftrain.cli.app import INTERRUPTED
    from selftrain.cli.running import folder_of
    from selftrain.errors import ConfigError
    from selftrain.watch.serving import serve

    def ready(address: str) -> None:
        click.echo(f"{address}\nCtrl-C ends the page, not the run.")
        if opens:
            webbrowser.open(address)

    root = folder_of(folder)
    if not isinstance(root, Path):
        raise ConfigError(str(root), "the live page follows files on a disk", "Copy or mount the run's folder; `selftrain report` and `query` read the URL.")
    try:
        serve(root, host, port, ready)
    except KeyboardInterrupt:
        click.get_current_context().exit(INTERRUPTED)
