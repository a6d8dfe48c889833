"""The run of a cell: new, taken up where it was interrupted, or finished and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftrain.comparing.plan import SHARED, Cell, Plan, known_cells, known_shared
from selftrain.compose import HELD_OUT_ANSWERS, deciding
from selftrain.config import RunConfig
from selftrain.config_load import validate_recorded
from selftrain.errors import RunFolderError
from selftrain.evals import Evaluation
from selftrain.ledger import Ledger, read
from selftrain.ledger.objects import Place, place
from selftrain.run import Run, resume, start
from selftrain.run_folder import is_there, resolved

IN_SHARED = tuple(f"{section}." for section in SHARED)
VARIED = ("run.seed", "policy.model", "policy.num_threads")
"""options of shared sections in which the runs of a comparison may differ"""

OF_SOURCES = (
    *("labels.source", "ema.", "stored.", "second_view.", "views.", "self_judge.", "reference.", "verifier.", "step_share.", "first_of.", "mixture.", "gate."),
    *("restrained.", "novelty."),
)
"""options that belong to a label source: those that are there do not have them, or have their own"""

EVALUATED = ("run.seed", "policy.", "evals.", "correction.", "rollout.max_new_tokens", "rollout.stop", "rollout.cache_mib")
"""options that an evaluation of the start depends on, besides the model and the problems"""


@dataclass(frozen=True, slots=True)
class Opened:
    """run: what is to be done; None where the cell is finished."""

    run: Run | None
    resumed: bool


def open_cell(cell: Cell, config: RunConfig) -> Opened:
    """The cell's run. Raises RunFolderError where its folder holds a run with another config; and as `start` and `resume` do."""
    folder = place(config.run.folder) / cell.name
    if not is_there(folder):
        run = start(config)
        for other in known_cells(folder.parent):
            if (other.start, other.seed) == (cell.start, cell.seed) and (before := same_start(read(folder), folder.parent / other.name)):
                run.know_start(before, other.name)
                break
        return Opened(run, False)
    record = read(folder)
    check_same(record, config)
    return Opened(None, True) if record.finished else Opened(resume(folder), True)


def same_start(ours: Ledger, other: Place) -> Evaluation | None:
    """The evaluation `before` of another run where it is sure to be ours as well: all that it depends on is equal, and draws are exact."""
    if other == ours.folder or not is_there(other):
        return None
    there = read(other)
    mine, theirs = (options_of(one.header["config"]) for one in (ours, there))
    equal = all(ours.header[name] == there.header[name] for name in ("model_hash", "held_out", "key_version", "selftrain_version"))
    equal = equal and ours.environment.get(HELD_OUT_ANSWERS) == there.environment.get(HELD_OUT_ANSWERS)
    if ours.header["class"] != "exact" or not equal or any(mine[name] != theirs.get(name) for name in mine if name.startswith(EVALUATED)):
        return None
    return next((Evaluation.from_json(one["evaluation"]) for one in there.evals(rolled_back=True) if one["name"] == "before"), None)


def check_shared(plan: Plan) -> None:
    """Raises RunFolderError where an earlier command's runs in the folder have other prompts, budget, rate, evaluations or objective: they would share a table.

    A run tells the first four, which no variant may change; the other options it may have as a variant, so there the shared ones that are written down count.
    """
    ours = next(iter(plan.cells.values()))
    here, there_are = options_of(deciding(resolved(ours))), False
    for cell in known_cells(plan.folder):
        if not is_there(plan.folder / cell.name):
            continue
        there_are = True
        if cell in plan.cells:
            continue  # `open_cell` looks at all of its options
        there = options_of(deciding(validate_recorded(read(plan.folder / cell.name).header["config"])))
        names = [name for name in here if name.startswith(IN_SHARED) and name not in VARIED]
        if other := differing(names, there, here):
            why = f"its run {cell.name} was made with other options: {other}"
            raise RunFolderError(f"comparison {plan.folder}", why, "Give the same options, or choose another --folder: what is compared shares them.")
    written = known_shared(plan.folder) if there_are else None
    if written is not None:
        there, here = (options_of(deciding(config)) for config in (validate_recorded(written), plan.shared))
        if other := differing([name for name in here if not name.startswith((*IN_SHARED, *OF_SOURCES))], there, here):
            do = "Give the same options, choose another --folder, or put them into a file for a variant of its own: --sources NAME=FILE.toml."
            raise RunFolderError(f"comparison {plan.folder}", f"it was begun with other options, which its sources share: {other}", do)


def differing(names: Sequence[str], there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Those of these options that differ, in words; empty where none does."""
    return "; ".join(f"{name} = {there[name]} there, {here[name]} now" for name in names if here[name] != there[name])


def check_same(record: Ledger, config: RunConfig) -> None:
    """Raises RunFolderError, naming the options, unless the recorded run has this config. Threads that are not given are those of the record."""
    there = options_of(deciding(validate_recorded(record.header["config"])))
    if config.policy.num_threads is None:
        config = config.model_copy(update={"policy": config.policy.model_copy(update={"num_threads": there["policy.num_threads"]})})
    here = options_of(deciding(resolved(config)))
    if other := differing([*here], there, here):
        do = "Give the options it was begun with, or choose another --folder; a run with other options is another run."
        raise RunFolderError(f"run {record.folder}", f"it was begun with another config: {other}", do)


def options_of(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The options of a config by dotted name."""
    return {f"{section}.{field}": value for section, values in config.items() for field, value in values.items()}
