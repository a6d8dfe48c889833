"""What is compared: sources x starts x seeds, each cell the config of an ordinary run in the comparison's folder."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from selftrain.comparing.controls import CONTROLS, REFERENCE, control_options, instead
from selftrain.compose import check_lengths, check_parts, check_verifier, deciding, load_policy, load_sets
from selftrain.compose_idle import check_new
from selftrain.compose_labels import BOUND, verifies
from selftrain.config import RunConfig
from selftrain.config_load import load_config, read_toml, with_options
from selftrain.errors import ConfigError, RunFolderError
from selftrain.labels import LABEL_SOURCES
from selftrain.ledger import read
from selftrain.ledger.objects import Place, place
from selftrain.ledger.storage import advice, make_folder, publish, read_bytes
from selftrain.run_folder import is_there

EMBEDDED = "embedded:"
SHARED = ("run", "policy", "prompts", "rollout", "update", "evals")
"""sections that all sources of a comparison share: the same prompts, budget, learning rate and evaluations"""
PLAN_FILE = "compare.json"
AGAIN = "Let there be room in the folder of the comparison that you may write to, then give the command again: finished runs are kept."

Options = dict[str, dict[str, Any]]
"""section -> option -> value, as a record has them"""


@dataclass(frozen=True, slots=True)
class Choice:
    """What is varied. sources: names, or NAME=FILE.toml. models: starts; none: the config's own. controls: add CONTROLS, and true answers where known."""

    sources: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    models: tuple[str, ...] = ()
    controls: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One run of a comparison. source: its name in the table; start: the model's name in `policy.model`.

    instead: what an added control has instead of the shared options, in words.
    """

    name: str
    source: str
    start: str
    seed: int
    instead: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Plan:
    """The cells with their configs, all seeds of a kind together: a comparison that is stopped early has few seeds of everything.

    shared: what all sources have but for their own options.
    """

    folder: Place
    cells: Mapping[Cell, RunConfig]
    shared: RunConfig


def make_plan(files: Sequence[str | Path], given: Mapping[str, Any], choice: Choice, folder: Place | None = None) -> Plan:
    """The cells of a comparison. given: options by dotted name, above the files and below a variant's own. folder: unset: the first free one of run.folder.

    Everything that can be known before the first sample is checked. Raises ConfigError, PromptError, ModelError.
    """
    shared = shared_config(files, given, choice.models)
    folder = folder or free_folder(place(shared.run.folder))
    starts = _distinct("--models", choice.models or (shared.policy.model,))
    named = _distinct("--sources", with_controls(shared, choice))
    added = {name: control_options(shared, name) for name in named[len(own_sources(shared, choice)) :]}
    sources = {name: {**options, **added.get(name, {})} for name, options in map(variant, named)}
    if not sources:
        raise ConfigError("--sources", "nothing is named that could be compared", "For example --sources ema majority reference, or NAME=FILE.toml.")
    if len(sources) < len(named):
        raise ConfigError("--sources", "two of them have one name", "Give each variant a name of its own: NAME=FILE.toml.")
    check_names(sources, shared.labels.source)
    slugs = {start: slug(start) for start in starts}
    if len(set(slugs.values())) < len(starts):
        raise ConfigError(f"--models {' '.join(starts)}", "two of them would have runs of the same name", "Rename one of the model folders.")
    cells = {}
    for seed, start, (source, options) in product(_distinct("--seeds", choice.seeds), starts, sources.items()):
        name = f"{slugs[start]}-{slug(source)}-seed-{seed}"
        own = {**options, "run.folder": str(folder), "run.name": name, "run.seed": seed, "policy.model": start}
        cells[Cell(name, source, start, seed, instead(shared, added.get(source, {})))] = with_options(shared, own)
    twice = next(_twice([cell.name for cell in cells]), None)
    if twice is not None:
        both = " and ".join(f"{cell.source} from {cell.start}" for cell in cells if cell.name == twice)
        raise ConfigError("--sources and --models", f"{both} would both be the run {twice}", "Give a variant another name, or rename a model folder.")
    check(cells)
    return Plan(folder, cells, shared)


def shared_config(files: Sequence[str | Path], given: Mapping[str, Any], models: Sequence[str]) -> RunConfig:
    """What all cells share. The embedded model's recipe lies under it where no file and no start names another model."""
    others = [model for model in models if not model.startswith(EMBEDDED)]
    return load_config(files, {**({"policy.model": others[0]} if others else {}), **given})


def with_controls(shared: RunConfig, choice: Choice) -> tuple[str, ...]:
    """The sources, of which the config's own is one where none is named, with the controls behind them, each once; true answers only where there are some."""
    sources = own_sources(shared, choice)
    if not choice.controls:
        return sources
    answered = bool(len(load_sets(shared).train.sheet))
    return (*sources, *(name for name in (*CONTROLS, *([REFERENCE] if answered else [])) if name not in sources))


def own_sources(shared: RunConfig, choice: Choice) -> tuple[str, ...]:
    """The sources without the controls that `--controls` adds."""
    return choice.sources or ((shared.labels.source,) if choice.controls else ())


def variant(text: str) -> tuple[str, dict[str, Any]]:
    """The name of a source in the table, and its options: `majority`, or `NAME=FILE.toml` for a named layer of options. Raises ConfigError."""
    name, equals, file = text.partition("=")
    if not equals and name.endswith(".toml"):
        raise ConfigError(f"--sources {name}", "it is no label source", "Put config files before --sources; a variant is written NAME=FILE.toml.")
    if not equals:
        return name, {"labels.source": name}
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise ConfigError(
            f"--sources {text}", "its name names a run folder", "Write NAME=FILE.toml with a name of letters, digits, dots, dashes and underscores."
        )
    layer = read_toml(Path(file))
    for section in layer:
        if section in SHARED:
            raise ConfigError(
                f"--sources {text}: [{section}] in {file}",
                "the sources of a comparison share prompts, budget, learning rate and evaluations; else a difference would not be due to the source",
                "Move it to the config file or the command line, where it holds for all of them.",
            )
    return name, {f"{section}.{field}": value for section, values in layer.items() for field, value in values.items()}


def check_names(sources: Mapping[str, Mapping[str, Any]], otherwise: str) -> None:
    """Raises ConfigError for a variant that is called like a label source and is another one. otherwise: the source of a variant that names none."""
    for name, options in sources.items():
        source = options.get("labels.source", otherwise)
        if name in {**LABEL_SOURCES, **BOUND} and source != name:
            raise ConfigError(
                f"--sources {name}=FILE.toml",
                f"in the table it would be taken for the label source {name}, and its labels.source is {source}",
                f'Write source = "{name}" under [labels] in its file, or give it another name.',
            )


def check(cells: Mapping[Cell, RunConfig]) -> None:
    """Raises ConfigError, PromptError or ModelError for what a run would refuse at its start, of one seed of each kind: seeds differ in their draws
    only. Stored labels belong to the prompts of one seed, and a fraction holds others in each, so there it is every seed."""
    seen, loaded, verifiers = set(), set(), set()
    for cell, config in cells.items():
        state = state_of(cell, config)
        kind = (cell.source, cell.start, state, cell.seed if config.uses_stored or holds_fraction(config) else None)
        if kind in seen:
            continue
        seen.add(kind)
        problems = load_sets(config)
        check_parts(config, problems)
        if state == "new":
            check_new(config, problems)
        verifier = (config.verifier.function, config.verifier.memory_mib)
        if state != "finished" and verifies(config) and verifier not in verifiers:
            check_verifier(config, problems.train)
            verifiers.add(verifier)
        if problems.held_out is None:
            why = "without held-out problems with true answers there is nothing to compare the sources by"
            raise ConfigError("evals.file and evals.task", why, "Give --evals.file FILE or --evals.task TASK.")
        if cell.start not in loaded:
            loaded.add(cell.start)
            check_lengths(config, load_policy(config), problems)


def state_of(cell: Cell, config: RunConfig) -> str:
    """new, begun or finished. A record is read for a run with a verifier only, which nothing but an unfinished one needs."""
    folder = place(config.run.folder) / cell.name
    if not is_there(folder):
        return "new"
    return "finished" if verifies(config) and read(folder).finished else "begun"


def holds_fraction(config: RunConfig) -> bool:
    """Whether a label source holds a fraction of the prompts, which are others for every seed."""
    names = [name for _, name in config.label_sources]
    return ("reference" in names and config.reference.frac < 1) or ("verifier" in names and config.verifier.frac < 1)


def slug(text: str) -> str:
    """A model's or a function's name as part of a folder's name. Example: embedded:weak is weak, org/Model-0.5B is Model-0.5B."""
    last = text.removeprefix(EMBEDDED).rstrip("/").rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._]+", "-", last).strip("-._") or "model"


def free_folder(parent: Place) -> Place:
    """compare-0001, compare-0002, ...: the first that is not there."""
    number = 1
    while is_there(parent / f"compare-{number:04d}"):
        number += 1
    return parent / f"compare-{number:04d}"


def remember(plan: Plan) -> None:
    """Write down the cells, after those that are written down already: a comparison grows by more seeds, sources or starts.

    With the first of them go the shared options, which those that come later must have; earlier versions have not written them down.
    """
    before = known_cells(plan.folder) if read_bytes(plan.folder / PLAN_FILE) is not None else ()
    has_runs = any(is_there(plan.folder / cell.name) for cell in before)
    shared = known_shared(plan.folder) if has_runs else deciding(plan.shared)
    rows = [
        {"name": cell.name, "source": cell.source, "start": cell.start, "seed": cell.seed, **({"instead": list(cell.instead)} if cell.instead else {})}
        for cell in dict.fromkeys([*before, *plan.cells])
    ]
    with advice(AGAIN):
        make_folder(plan.folder)
        known = {"format": 1, **({} if shared is None else {"shared": shared}), "cells": rows}
        publish(plan.folder / PLAN_FILE, json.dumps(known, indent=1).encode())


def known_cells(folder: Place) -> tuple[Cell, ...]:
    """The cells that a comparison's folder names. Raises RunFolderError when it is no such folder."""
    return _written(folder)[0]


def known_shared(folder: Place) -> Options | None:
    """The shared options that the folder was begun with; None where an earlier version began it. Raises RunFolderError when it is no such folder."""
    return _written(folder)[1]


def _written(folder: Place) -> tuple[tuple[Cell, ...], Options | None]:
    data = read_bytes(folder / PLAN_FILE)
    if data is None:
        raise RunFolderError(f"folder {folder}", f"there is no {PLAN_FILE} in it, so it is no comparison", "Give the folder that `selftrain compare` made.")
    try:
        known = json.loads(data)
        cells = tuple(Cell(row["name"], row["source"], row["start"], row["seed"], tuple(row.get("instead", ()))) for row in known["cells"])
        return cells, {section: dict(values) for section, values in known["shared"].items()} if "shared" in known else None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        do = "Restore it, or make the comparison again by its command: finished runs are kept."
        raise RunFolderError(f"{folder / PLAN_FILE}", f"it cannot be read ({type(error).__name__}: {error})", do) from error


def _distinct(option: str, values: Sequence[Any]) -> Sequence[Any]:
    """The values, each once. Raises ConfigError for one that is given twice: its runs would be the same."""
    twice = next(_twice(values), None)
    if twice is not None:
        raise ConfigError(f"{option} {twice}", "it is given twice", "Name it once.")
    return values


def _twice(values: Sequence[Any]) -> Iterator[Any]:
    return (value for at, value in enumerate(values) if value in values[:at])
