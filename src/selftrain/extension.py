"""A name in the config -> the function it stands for: one of ours, or `package.module:function` of the user's."""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from selftrain.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])


def resolve(option: str, name: str, known: Mapping[str, F]) -> F:
    """The function behind `name`. Raises ConfigError when it is neither known nor importable."""
    if name in known:
        return known[name]
    if ":" not in name:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise ConfigError(f"{option} = {name}", "there is no such name", f"{hint}Choose one of {', '.join(known)}, or package.module:function.")
    module_name, _, attribute = name.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"{option} = {name}", f"it cannot be imported ({error})", "Check the name and that the package is installed here.") from error
    if not callable(found):
        raise ConfigError(f"{option} = {name}", "it is not a function", "Name a function with the signature in docs/extending.md.")
    return found  # type: ignore[no-any-return]


def source_hash(name: str, known: Mapping[str, Any]) -> str | None:
    """SHA-256 of the source of the module that holds outside code, for the run header; None for our own names."""
    if name in known or ":" not in name:
        return None
    source = inspect.getsource(importlib.import_module(name.partition(":")[0]))
    return hashlib.sha256(source.encode("utf-8")).hexdigest()
