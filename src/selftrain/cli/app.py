"""The commands and how a call of `selftrain` ends: exit statuses and error messages."""

from __future__ import annotations

import difflib
import errno
import os
import re
import sys
import traceback
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version
from io import TextIOWrapper
from pathlib import Path
from typing import Any

import click

from selftrain.errors import SelftrainError

COMMANDS = {
    "train": "self-train a model on prompts without answers",
    "resume": "go on with a run that was interrupted or killed",
    "compare": "label sources x starts x seeds on one budget: a table and a figure",
    "calibrate": "before any training: how trustworthy the vote is, and a forecast of gain or loss",
    "label": "the votes of a model on the training prompts, stored in a file to train on",
    "evaluate": "avg@k, maj@k, pass@k of one or several models on problems with answers",
    "vote": "completions in, consensus answers out: a filter",
    "guard": "watch any run for reward hacking, without labels",
    "watch": "a live page of runs in the web browser",
    "profile": "where the time of a training step goes",
    "report": "write the report of a run: HTML and Markdown",
    "query": "ask a run's record with SQL, or one of the named questions",
    "verify": "prove that nothing in a run's record was changed",
    "export": "the model a run hands over, as a Hugging Face folder",
    "prompts": "show the prompts that a run would train on",
    "completion": "print the shell completion script",
}
"""Each command is the attribute `command` of the module of its name, imported when it is needed."""

INTERRUPTED, BROKEN_PIPE, USAGE, FAILED = 130, 141, 2, 1

CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class Commands(click.Group):
    """A group whose commands are imported one by one, so that `selftrain --help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        found = import_module(f"selftrain.cli.{cmd_name}_command").command
        assert isinstance(found, click.Command)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        """Nobody reading any more is no error: leave quietly, also when the last output is flushed at exit."""
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            ctx.exit(BROKEN_PIPE)
        return result

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.command(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    epilog="Exit status: 0 done, 1 a failure, 2 a mistake in what was given, 130 Ctrl-C, 143 SIGTERM. `selftrain COMMAND --help` has the options.",
)
@click.version_option(version("selftrain"), prog_name="selftrain")
def app() -> None:
    """Make a reasoning model better on prompts that nobody has labelled.

    `selftrain train` without arguments trains the embedded model within minutes, on a laptop, with nothing to download.
    """


def main() -> None:
    """The entry point of the `selftrain` program."""
    open_standard_streams()
    sys.exit(call(sys.argv[1:]))


def open_standard_streams() -> None:
    """Of standard input, output and error those that the caller has closed lead nowhere: else the next files that are opened, such as a run's record, would
    stand in their places, and what any library writes to its standard error would go there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - for as long as the process lives
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115


def call(args: Sequence[str]) -> int:
    """Run a command line and return its exit status; errors are told on stderr in three parts, with a traceback only under --debug."""
    debug = "--debug" in args
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # what the encoding of the output lacks is shown escaped and ends nothing
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))  # after everything installed: `module:function` may name a file that lies here
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its warnings would break the display; what matters comes as an error of ours
    warnings.formatwarning = warning_line
    try:
        result: Any = app.main(list(args), prog_name="selftrain", standalone_mode=False)
    except SelftrainError as error:
        return tell(error.given, error.why, error.do, error.exit_status, debug)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return USAGE
    except click.UsageError as error:
        return tell(*usage_parts(error), USAGE, debug)
    except (KeyboardInterrupt, click.Abort):
        return tell("Ctrl-C", "stopped at once", "A run that was being written can be taken up again: selftrain resume RUN.", INTERRUPTED, debug)
    except OSError as error:
        why = lost_output(error)
        if why is None:
            return unexpected(error, debug)
        return tell("the output", f"it cannot be written ({why})", "Free some space, or send it elsewhere.", FAILED, debug)
    except Exception as error:  # noqa: BLE001 - the outermost frame: whatever broke ends as one line and a status
        return unexpected(error, debug)
    return result if isinstance(result, int) else 0


def warning_line(message: Warning | str, *_: object, **__: object) -> str:
    """How a warning is told on stderr, in colour on a terminal only."""
    return f"{coloured('warning:', 'yellow')} {CONTROLS.sub(lambda found: ascii(found[0])[1:-1], str(message))}\n"


def coloured(word: str, colour: str) -> str:
    """A word of stderr, in bold colour on a terminal that shows some and whose user does not mind (no-color.org)."""
    is_plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stderr.isatty()
    return word if is_plain else click.style(word, fg=colour, bold=True)


def unexpected(error: Exception, debug: bool) -> int:
    words = " ".join(str(error).split())[:400]
    do = "This is a bug or a broken installation. Run again with --debug for the traceback."
    return tell(type(error).__name__, words or "no message", do, FAILED, debug)


def lost_output(error: OSError) -> str | None:
    """Why stdout cannot be written, None where the error came from elsewhere. What it still holds is thrown away: Python would fail at it again at its exit.

    A stdout without a buffer holds nothing to try again with; there a full disk under no file's name is its own, since all files of ours are named.
    """
    try:
        sys.stdout.flush()
    except OSError as again:
        error = again
    else:
        if error.filename is not None or error.errno not in FULL:
            return None
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return error.strerror or str(error)


def tell(given: str, why: str, do: str, status: int, debug: bool) -> int:
    """Print an error: what was given, why it cannot work, what to do. Returns the status."""
    if debug:
        traceback.print_exc()
    click.echo(f"{coloured('error:', 'red')} {given}: {why}\n  {as_sentence(do)}", err=True)
    return status


def as_sentence(words: str) -> str:
    """With a capital, unless it begins with a name such as run.num_steps."""
    first = words.partition(" ")[0].rstrip(".,:")
    return words if "." in first or "_" in first else words[:1].upper() + words[1:]


INSTEAD = {("compare", "--policy.model"): "--models", ("compare", "--run.folder"): "--folder", ("compare", "--run.name"): "--folder"}
"""(command, option of another one) -> what stands for it there"""


def usage_parts(error: click.UsageError) -> tuple[str, str, str]:
    """click's mistakes in our three parts."""
    where = error.ctx.command_path if error.ctx else "selftrain"
    help_command = f"`{where} --help` lists what there is."
    if isinstance(error, click.NoSuchOption):
        known = [name for parameter in error.ctx.command.params for name in parameter.opts if name.startswith("--")] if error.ctx else []
        elsewhere = INSTEAD.get((where.rpartition(" ")[2], error.option_name))
        near = [elsewhere] if elsewhere else difflib.get_close_matches(error.option_name, known, n=1, cutoff=0.0)
        return f"option {error.option_name}", "there is no such option", f"The nearest one is {near[0]}. {help_command}" if near else help_command
    if isinstance(error, click.exceptions.NoSuchCommand):
        near = difflib.get_close_matches(error.command_name, COMMANDS, n=1, cutoff=0.0)
        return f"command {error.command_name}", "there is no such command", f"The nearest one is {near[0]}. {help_command}"
    if isinstance(error, click.BadOptionUsage):
        return f"option {error.option_name}", "it needs a value", f"Write {error.option_name} VALUE. {help_command}"
    if isinstance(error, click.MissingParameter):
        name = error.param.make_metavar(error.ctx) if error.param and error.ctx else "an argument"
        return where, f"{name} is missing", f"Usage: {where} {name}. {help_command}"
    return where, error.format_message().rstrip("."), help_command
