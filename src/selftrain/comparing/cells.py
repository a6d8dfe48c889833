"""The run of a cell: new, taken up where it was interrupted, or finished and kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from selftrain.comparing.plan import SHARED, Cell, Plan, known_cells
from selftrain.compose import HELD_OUT_ANSWERS, deciding
from selftrain.config import RunConfig
from selftrain.config_load import validate_recorded
from selftrain.errors import RunFolderError
from selftrain.evals import Evaluation
from selftrain.ledger import Ledger, read
from selftrain.ledger.objects import Place, place
from selftrain.run import Run, resume, start
from selftrain.run_folder import is_there, resolved

VARIED = ("run.seed", "policy.model", "policy.num_threads")
"""options of shared sections in which the runs of a comparison may differ"""

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
    """Raises RunFolderError where an earlier command's runs in the folder have other prompts, budget, rate or evaluations: they would share a table."""
    ours = next(iter(plan.cells.values()))
    here = options_of(deciding(resolved(ours)))
    for cell in known_cells(plan.folder):
        if cell in plan.cells or not is_there(plan.folder / cell.name):
            continue
        there = options_of(deciding(validate_recorded(read(plan.folder / cell.name).header["config"])))
        names = [name for name in here if name.startswith(tuple(f"{section}." for section in SHARED)) and name not in VARIED]
        other = [f"{name} = {there[name]} there, {here[name]} now" for name in names if here[name] != there[name]]
        if other:
            why = f"its run {cell.name} was made with other options: {'; '.join(other)}"
            raise RunFolderError(f"comparison {plan.folder}", why, "Give the same options, or choose another --folder: what is compared shares them.")


def check_same(record: Ledger, config: RunConfig) -> None:
    """Raises RunFolderError, naming the options, unless the recorded run has this config. Threads that are not given are those of the record."""
    there = options_of(deciding(validate_recorded(record.header["config"])))
    if config.policy.num_threads is None:
        config = config.model_copy(update={"policy": config.policy.model_copy(update={"num_threads": there["policy.num_threads"]})})
    here = options_of(deciding(resolved(config)))
    other = [f"{name} = {there[name]} there, {value} now" for name, value in here.items() if there[name] != value]
    if other:
        do = "Give the options it was begun with, or choose another --folder; a run with other options is another run."
        raise RunFolderError(f"run {record.folder}", f"it was begun with another config: {'; '.join(other)}", do)


def options_of(config: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The options of a config by dotted name."""
    return {f"{section}.{field}": value for section, values in config.items() for field, value in values.items()}
