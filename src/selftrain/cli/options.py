"""RunConfig's fields as options of a command: --section.name VALUE, with unit, default and meaning in the help."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import click
from click.shell_completion import CompletionItem

from selftrain.config import RunConfig
from selftrain.config_load import fields_of, option_names
from selftrain.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])
METAVARS = {int: "INTEGER", float: "NUMBER", str: "TEXT", bool: "yes|no", dict: "JSON", tuple: "TEXT"}
PATHS = ("prompts.file", "evals.file", "validation.file", "stored.file", "run.folder", "policy.model")


class OptionText(click.ParamType[Any]):
    """The text of an option; RunConfig checks it, so that files and command line give the same errors. Only JSON is read here."""

    name = "value"

    def __init__(self, option: str, kind: Any) -> None:
        self.option, self.kind = option, kind

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ARG002
        if self.kind is not dict or not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except ValueError as error:
            example = '{"majority": 0.7, "frozen": 0.3}' if self.option == "mixture.weights" else '{"enable_thinking": false}'
            raise ConfigError(f"{self.option} = {value!r}", f"it is not JSON ({error})", f"Write a JSON object, for example '{example}'.") from error
        return found

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        if self.option in PATHS:
            return [CompletionItem(incomplete, type="file")]
        choices = get_args(self.kind) if get_origin(self.kind) is Literal else ("yes", "no") if self.kind is bool else ()
        return [CompletionItem(choice) for choice in choices if choice.startswith(incomplete)]


class ConfigOption(click.Option):
    """An option that stands for a field of RunConfig. section, unit: as there."""

    def __init__(self, option: str) -> None:
        section, _, field = option.partition(".")
        info = fields_of(RunConfig.model_fields[section].annotation)[field]
        kind = plain_type(info.annotation)
        many = kind is tuple
        self.config_name, self.section, self.unit = option, section, info.json_schema_extra["unit"]
        self.meaning, self.default_text = info.description, default_text(info.default)
        again = " May be given several times." if many else ""
        super().__init__(
            [option.replace(".", "__"), f"--{option.replace('_', '-')}"],
            type=OptionText(option, kind),
            multiple=many,
            metavar=metavar_of(kind),
            help=f"{self.meaning}{again} [{self.unit}; default: {self.default_text}]",
        )


class ConfigCommand(click.Command):
    """A command whose help groups the options by the section of the config; --update.learning_rate is the same as --update.learning-rate."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.context_settings = {**self.context_settings, "token_normalize_func": lambda token: token.replace("_", "-")}

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None:
                title = section_title(parameter.section) if isinstance(parameter, ConfigOption) else "Options"
                sections.setdefault(title, []).append(record)
        general = sections.pop("Options", [])
        for title, records in [("Options", general), *sections.items()]:
            if records:
                with formatter.section(title):
                    formatter.write_dl(records, col_max=36)


def section_title(section: str) -> str:
    annotation: Any = RunConfig.model_fields[section].annotation
    return f"[{section}] {str(annotation.__doc__).strip().rstrip('.')}"


def plain_type(annotation: Any) -> Any:
    """int of `int | None`, tuple of `tuple[str, ...]`, the Literal of a Literal."""
    if get_origin(annotation) is Literal:
        return annotation
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) in (tuple, dict):
        return get_origin(annotation)
    return parts[0] if parts else annotation


def metavar_of(kind: Any) -> str:
    return "|".join(get_args(kind)) if get_origin(kind) is Literal else METAVARS[kind]


def default_text(default: Any) -> str:
    """A default as help and documentation show it."""
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return "yes" if default else "no"
    if isinstance(default, str):
        return json.dumps(default) if any(letter.isspace() for letter in default) else default
    if isinstance(default, tuple | dict) and default:
        return ", ".join(default) if isinstance(default, tuple) else json.dumps(default)
    return "none" if default in ((), {}) else f"{default:g}" if isinstance(default, float) else str(default)


def config_options(*prefixes: str, without: tuple[str, ...] = ()) -> Callable[[F], F]:
    """A decorator that adds the options whose dotted name starts with one of the prefixes (all, without any)."""

    def add(function: F) -> F:
        chosen = [name for name in option_names() if (not prefixes or name.startswith(prefixes)) and name not in without]
        for name in reversed(chosen):
            click.decorators._param_memo(function, ConfigOption(name))
        return function

    return add


def config_files(files: Sequence[str]) -> Sequence[str]:
    """The files, none of which holds prompts: those have an option. Raises ConfigError for such a mistake."""
    for file in files:
        if file.endswith((".jsonl", ".csv", ".parquet")):
            raise ConfigError(f"config file {file}", "config files are TOML, and this looks like a file of prompts", f"Give it with --prompts.file {file}")
        if Path(file).is_dir():
            raise ConfigError(f"config file {file}", "it is a folder, and config files are TOML", f"If it is a model: --policy.model {file}")
    return files


def overrides(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, by dotted name."""
    return {name.replace("__", "."): value for name, value in values.items() if value is not None and value != ()}
