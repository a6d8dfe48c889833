"""What is found out about a run when it is over, for the table only: nothing here is seen by a run.

Files in `measured/` of the comparison's folder keep it, each with the ledger head it judged, so a table is made again without models or prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from selftrain import kept_checkpoints
from selftrain.checkpoints import place_of, verify_checkpoint
from selftrain.comparing.plan import AGAIN, Cell, slug
from selftrain.compose import HELD_OUT_ANSWERS, Problems, check_held_out_answers, load_policy, load_sets
from selftrain.compose_correction import second_turns
from selftrain.config import RunConfig
from selftrain.errors import RunFolderError
from selftrain.evals import Evaluation, TrainingAccuracy, evaluate, training_accuracy
from selftrain.handover import START
from selftrain.ledger.objects import Place
from selftrain.ledger.storage import advice, make_folder, publish, read_bytes
from selftrain.policies.base import Policy, SamplingParams
from selftrain.prompts import prompt_set_hash
from selftrain.report import RunRecord, read_record
from selftrain.run_folder import relocated
from selftrain.seeds import Stream

GREEDY, COOL = "greedy", "T = 0.5"
BASE_TEMPERATURES: Mapping[str, float] = {GREEDY: 0.0, COOL: 0.5}
"""how the start is evaluated besides the run's own temperature: avg@k at T = 1 also rises by mere sharpening"""

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measured:
    """training: step -> accuracy of its rewards and labels; empty without true answers. end: the newest checkpoint, None where the run evaluated it itself."""

    training: Mapping[int, TrainingAccuracy]
    end: Evaluation | None


def measure(folder: Place, cell: Cell, tell: Tell) -> None:
    """Find out and write down what is missing about a finished cell and its start. tell: is told before something that takes time.

    Raises RunFolderError where its prompts or model are not those of the run any more.
    """
    record = read_record(folder / cell.name)
    config = relocated(record.config, Path(record.environment["cwd"]))
    needs_run, needs_base = measured(folder, record) is None, base_of(folder, cell, record) is None
    if not needs_run and not needs_base:
        return
    problems = load_sets(config)
    check_sets(record, problems)
    policy = load_policy(config)
    with advice(AGAIN):
        make_folder(folder / "measured")
    if needs_base:
        tell(f"evaluating the start {cell.start} {', '.join(BASE_TEMPERATURES)}")
        found = {name: evaluated(config, policy, problems, temperature).to_json() for name, temperature in BASE_TEMPERATURES.items()}
        write(base_file(folder, cell), {**start_of(record), "evaluations": found})
    if needs_run:
        tell(f"comparing the labels of {cell.name} with true answers")
        training = {step: asdict(training_accuracy(record.ledger.groups(step), problems.train.sheet)) for step in record.ledger.group_steps()}
        last = last_checkpoint(record)
        end = None
        if end_of(record) is None:
            tell(f"evaluating {last} of {cell.name}")
            policy.load(verify_checkpoint(kept_checkpoints.on_disk(record.folder / "checkpoints" / last)).path)
            end = evaluated(config, policy, problems, config.evals.temperature).to_json()
        write(run_file(folder, cell.name), {"head": record.ledger.head, "training": training, "end": end})


def evaluated(config: RunConfig, policy: Policy, problems: Problems, temperature: float) -> Evaluation:
    """The policy on the held-out problems with the draws of the run's own evaluations; greedy has one completion a problem. Without examples.

    There is a second turn at the temperature of the run's own evaluations only.
    """
    assert problems.held_out is not None
    section = config.evals
    params = SamplingParams(config.rollout.max_new_tokens, temperature, section.top_p if temperature else 1.0, stop=config.rollout.stop)
    samples = section.num_samples if temperature else 1
    again = second_turns(config, policy) if temperature == section.temperature else None
    found = evaluate(policy, problems.held_out, params, samples, Stream(config.run.seed).at(stream="eval"), again=again)
    return replace(found, examples=())


def check_sets(record: RunRecord, problems: Problems) -> None:
    """Raises RunFolderError unless the prompts and problems are still those of the run."""
    held_out = record.header["held_out"]
    there = (record.header["prompts"]["hash"], held_out and held_out["hash"])
    here = (prompt_set_hash(problems.train), problems.held_out and prompt_set_hash(problems.held_out))
    if here != there:
        raise RunFolderError(f"run {record.folder}: its prompts or problems", "they are not those it was made with", "Restore them, or make the run again.")
    check_held_out_answers(record.folder, record.environment, problems)


def last_checkpoint(record: RunRecord) -> str:
    """The newest checkpoint of the record, or `start`; where it is not on the disk any more, what was measured of it still is."""
    names = [one.name for one in record.ledger.checkpoints()]
    return names[-1] if names else START


def end_step(record: RunRecord) -> int:
    """Steps done at the newest checkpoint."""
    _, steps = place_of(last_checkpoint(record)) or (0, 0)
    return steps


def end_of(record: RunRecord) -> Evaluation | None:
    """The run's own evaluation of its newest checkpoint; None where it handed over others and did not evaluate these."""
    last = last_checkpoint(record)
    return record.evaluation({START: "before", record.handed_over: "after"}.get(last, last))


def measured(folder: Place, record: RunRecord) -> Measured | None:
    """What is written down about a run; None where nothing is, or of another record."""
    found = read(run_file(folder, record.name))
    if found is None or found["head"] != record.ledger.head:
        return None
    training = {int(step): TrainingAccuracy(**values) for step, values in found["training"].items() if values["num_groups"]}
    return Measured(training, Evaluation.from_json(found["end"]) if found["end"] else None)


def base_of(folder: Place, cell: Cell, record: RunRecord) -> dict[str, Evaluation] | None:
    """The evaluations of a cell's start by name; None where they are not written down, or of another model or other problems."""
    found = read(base_file(folder, cell))
    if found is None or any(found.get(name) != value for name, value in start_of(record).items()):
        return None
    return {name: Evaluation.from_json(one) for name, one in found["evaluations"].items()}


def start_of(record: RunRecord) -> dict[str, Any]:
    """What evaluations of a start belong to: its model, the problems and their answers (None where an earlier version made the run)."""
    return {
        "model_hash": record.header["model_hash"],
        "held_out": record.header["held_out"]["hash"],
        HELD_OUT_ANSWERS: record.environment.get(HELD_OUT_ANSWERS),
    }


def run_file(folder: Place, name: str) -> Place:
    return folder / "measured" / f"{name}.json"


def base_file(folder: Place, cell: Cell) -> Place:
    return folder / "measured" / f"start-{slug(cell.start)}-seed-{cell.seed}.json"


def write(path: Place, values: Mapping[str, Any]) -> None:
    with advice(AGAIN):
        publish(path, json.dumps(values).encode())


def read(path: Place) -> dict[str, Any] | None:
    """A file of `measured/`; None where there is none or it is of no use any more: it is made again."""
    data = read_bytes(path)
    try:
        found = json.loads(data) if data is not None else None
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
