"""How to repeat a run: its command line."""

from __future__ import annotations

import json
import shlex
from typing import Any

from selftrain.config import RunConfig

PLACE = ("run.name", "run.folder")


def command_line(config: RunConfig) -> str:
    """`selftrain train` with every option that differs from its default, and the model, which keeps the recipe of the embedded model out."""
    words = ["selftrain", "train", "--policy.model", config.policy.model]
    defaults = RunConfig()
    for section in RunConfig.model_fields:
        given, default = getattr(config, section), getattr(defaults, section)
        for field in type(given).model_fields:
            value = getattr(given, field)
            if value != getattr(default, field) and value is not None and f"{section}.{field}" not in (*PLACE, "policy.model"):
                words += option_words(f"--{section}.{field.replace('_', '-')}", value)
    return shlex.join(words)


def option_words(option: str, value: Any) -> list[str]:
    """An option as it is written on the command line."""
    if isinstance(value, bool):
        return [option, "yes" if value else "no"]
    if isinstance(value, tuple):
        return [word for one in value for word in (option, str(one))]
    return [option, json.dumps(value) if isinstance(value, dict) else str(value)]
