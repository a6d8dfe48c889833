"""Where a new run is kept, and what is written down about the machine it runs on."""

from __future__ import annotations

import os
import platform
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from selftrain.config import RunConfig
from selftrain.errors import RunFolderError
from selftrain.ledger import LedgerWriter
from selftrain.ledger.objects import Place, place
from selftrain.ledger.storage import names
from selftrain.policies.toy import is_toy
from selftrain.types import PromptSet


def new_folder(config: RunConfig) -> Place:
    """The folder of a new run, on a disk or in an object store; a given name must be free. Raises RunFolderError."""
    parent = place(config.run.folder)
    if config.run.name is None:
        number = 1
        while is_there(parent / f"train-{number:04d}"):
            number += 1
        return parent / f"train-{number:04d}"
    folder = parent / config.run.name
    if is_there(folder):
        do = f"Go on with it by `selftrain resume {shlex.quote(str(folder))}`, or choose another --run.name."
        raise RunFolderError(f"run folder {folder}", "it exists already", do)
    return folder


def begun(config: RunConfig, header: Mapping[str, Any], environment: Mapping[str, Any]) -> tuple[Place, LedgerWriter]:
    """The folder of a new run with its record. Without a name of its own it takes the next number that is free now: loading the model took a while.

    Raises RunFolderError where another run has the name, StorageError.
    """
    while True:
        folder = new_folder(config)
        try:
            return folder, LedgerWriter.create(folder, header, environment)
        except RunFolderError:
            if config.run.name is not None or not is_there(folder):
                raise


def named(folder: Place) -> Place:
    """The folder by a path that ends in its name: `.` and `..` do not."""
    return folder.resolve() if isinstance(folder, Path) and folder.name in ("", "..") else folder


def is_there(folder: Place) -> bool:
    return folder.exists() if isinstance(folder, Path) else bool(names(folder))


def resolved(config: RunConfig) -> RunConfig:
    """The config with what depends on this machine written down: the number of threads and the type of the arithmetic."""
    policy = config.policy
    chosen = {"num_threads": policy.num_threads or threads_here(), "dtype": policy.compute_dtype}
    return config.model_copy(update={"policy": policy.model_copy(update=chosen)})


def threads_here() -> int:
    """What OMP_NUM_THREADS says (of a list, its first number), else one per core that this process may use."""
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def environment(config: RunConfig) -> dict[str, Any]:
    """Where and with what a run was made: for people, outside the hash chain."""
    from importlib.metadata import PackageNotFoundError, version

    packages = {}
    for package in ("selftrain", "torch", "transformers", "numpy", "pyarrow", "peft", "bitsandbytes", "vllm"):
        try:
            packages[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cwd": str(Path.cwd()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cores": os.cpu_count(),
        "device": config.policy.device,
        "packages": packages,
    }


def relocated(config: RunConfig, home: Path) -> RunConfig:
    """A run's relative paths, seen from `home`, where it was started; from this folder only where there is nothing of that name: another file of the same
    name that lies here is not the run's. A file that is in neither is looked for where it was, so that what is said of it names that folder.
    """

    def seen(path: str | None) -> str | None:
        return str(home / path) if path and home != Path.cwd() and os.path.exists(home / path) else path

    def read(path: str | None) -> str | None:
        return str(home / path) if path and not os.path.exists(path) else seen(path)

    prompts = config.prompts.model_copy(update={"file": read(config.prompts.file)})
    evals = config.evals.model_copy(update={"file": read(config.evals.file)})
    validation = config.validation.model_copy(update={"file": read(config.validation.file)})
    stored = config.stored.model_copy(update={"file": read(config.stored_file)})
    policy = config.policy if is_toy(config.policy.model) else config.policy.model_copy(update={"model": seen(config.policy.model)})
    return config.model_copy(update={"prompts": prompts, "evals": evals, "validation": validation, "stored": stored, "policy": policy})


def named_as(config: RunConfig, at_home: RunConfig, prompts: PromptSet) -> PromptSet:
    """A set that was read with the config `at_home`, under the name it has in `config`: records say the path that was given."""
    paths = {getattr(at_home, section).file: getattr(config, section).file for section in ("prompts", "evals", "validation")}
    return replace(prompts, origin=paths.get(prompts.origin, prompts.origin))
