"""Help is complete and quick, completion works, and nothing heavy is imported for either."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from importlib.metadata import version

import pytest

import selftrain
from selftrain.cli.app import COMMANDS
from selftrain.cli.options import PATHS
from selftrain.config_load import fields_of, option_names
from tests.cli.conftest import Selftrain

HEAVY = ("torch", "transformers", "pyarrow", "numpy")


def python(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=30, env={**os.environ, **environment})


def test_help_names_every_command_and_is_quick() -> None:
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        done = python("-m", "selftrain", "--help")
        seconds.append(time.perf_counter() - begun)
    assert done.returncode == 0, done.stderr
    for name, meaning in COMMANDS.items():
        assert f"{name} " in done.stdout
        assert meaning.split()[0] in done.stdout
    assert min(seconds) < 1


@pytest.mark.parametrize("words", ["--help", "train --help", "evaluate --help", "vote --help", "completion bash"])
def test_nothing_heavy_is_imported(words: str) -> None:
    code = f"import sys; from selftrain.cli import call; call({words.split()!r}); print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    done = python("-c", code)
    assert done.stderr.strip() == "[]"


def test_import_selftrain_offers_the_api_lazily() -> None:
    heavy = (*HEAVY, "pydantic", "rich")
    code = f"import sys, selftrain; print([m for m in {heavy!r} if m in sys.modules], all(hasattr(selftrain, name) for name in selftrain.__all__))"
    assert python("-c", code).stdout.strip() == "[] True"
    for name in ("load_config", "start", "resume", "train_to_end", "evaluate", "export", "write_report"):
        assert callable(getattr(selftrain, name))


def test_help_of_train_has_every_option_with_unit_default_and_meaning(command: Selftrain) -> None:
    from selftrain.cli.options import default_text
    from selftrain.config import RunConfig

    text = " ".join(command("train", "--help").out.split())
    for name in option_names():
        section, _, field = name.partition(".")
        info = fields_of(RunConfig.model_fields[section].annotation)[field]
        assert f"--{name.replace('_', '-')} " in text
        unit = f"[{info.json_schema_extra['unit']}; default: {default_text(info.default)}]"
        assert " ".join(unit.split()) in text, name
        assert " ".join(info.description.split()) in text, name


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(command: Selftrain, name: str) -> None:
    called = command(name, "--help")
    assert called.status == 0
    assert called.out.startswith(f"Usage: selftrain {name}")
    assert len(called.out.splitlines()) > 6


def test_without_a_command_help_is_shown(command: Selftrain) -> None:
    called = command()
    assert called.status == 2
    assert "Commands:" in called.err


def test_version(command: Selftrain) -> None:
    assert command("--version").out.strip() == f"selftrain, version {version('selftrain')}"
    assert python("-m", "selftrain", "--version").stdout.strip() == f"selftrain, version {version('selftrain')}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(command: Selftrain, shell: str) -> None:
    called = command("completion", shell)
    assert called.status == 0
    assert "_SELFTRAIN_COMPLETE" in called.out


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("selftrain tra", {"train"}),
        ("selftrain train --update.lear", {"--update.learning-rate"}),
        ("selftrain train --objective.name ", {"reinforce", "clipped"}),
        ("selftrain train --validation.file some", {"some"}),
    ],
)
def test_completion_knows_commands_options_and_choices(words: str, expected: set[str]) -> None:
    count = str(len(words.split(" ")) - 1)
    done = python("-m", "selftrain", _SELFTRAIN_COMPLETE="bash_complete", COMP_WORDS=words, COMP_CWORD=count)
    assert {line.split(",")[1] for line in done.stdout.splitlines()} == expected


def test_options_that_name_files_complete_paths() -> None:
    options = [option for option in option_names() if option.rpartition(".")[2] in ("file", "folder")]
    assert set(options) <= set(PATHS)
