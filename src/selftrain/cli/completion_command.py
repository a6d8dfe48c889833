"""`selftrain completion`"""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    bash: add `eval "$(selftrain completion bash)"` to ~/.bashrc. zsh: the same with zsh in ~/.zshrc.
    fish: `selftrain completion fish > ~/.config/fish/completions/selftrain.fish`.
    """
    from click.shell_completion import get_completion_class

    from selftrain.cli.app import app

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(app, {}, "selftrain", "_SELFTRAIN_COMPLETE").source())
