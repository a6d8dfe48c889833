"""Evaluations that a recorded run has not: of its last weights, of what the guard would hand over, and on fresh problems.

The best of nine checkpoints is the best partly by luck on the problems that chose it; fresh problems are in none of the run's sets. The base, the best and the
checkpoint that is handed over are measured on the same ones with the same draws. Runs are not touched: a small file per run is written beside the judgement.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from guard_lab import PROBLEMS, Cell
from guard_runs import LabRun, judged, load, read_measured
from selftrain.checkpoints import checkpoint_name
from selftrain.compose import load_policy, load_sets
from selftrain.config import RunConfig
from selftrain.errors import PromptError
from selftrain.evals import evaluate
from selftrain.evaluate_model import evaluate as evaluate_model
from selftrain.evaluate_model import named
from selftrain.ledger.storage import publish
from selftrain.policies.base import SamplingParams
from selftrain.prompts import ids_of_forms
from selftrain.prompts.loading import in_template, training_template
from selftrain.prompts.tasks import mixture
from selftrain.run import read_config
from selftrain.seeds import Stream
from selftrain.types import PromptSet

LEAST_PROBLEMS = 96
"""fresh problems that a comparison needs"""


def measure(lab: Path, out: Path, hours: float, fresh: bool, wanted: Callable[[Cell], bool]) -> None:
    """Make what is missing of the wanted runs, a file each; begin nothing after so many hours. The runs' own held-out problems come first."""
    until = time.monotonic() + 3600 * hours
    for is_fresh in (False, True)[: 1 + fresh]:
        for run in (run for run in load(lab, measured=out, probes=out.parent / "probes") if wanted(run.cell)):
            for step in missing(run, out, is_fresh):
                if time.monotonic() > until:
                    return
                keep(out, run.cell, "fresh" if is_fresh else "held_out", step, shares(lab, out, run, step, is_fresh))
                print(run.cell.name, "fresh" if is_fresh else "held out", step, flush=True)


def missing(run: LabRun, out: Path, is_fresh: bool) -> list[int]:
    """Steps done of the checkpoints whose evaluation is wanted and not there."""
    found = judged(run)
    if not is_fresh:
        return sorted({run.num_steps, found.handed_over} - run.points.keys())
    return sorted({0, found.best, found.handed_over} - {int(step) for step in read_measured(out, run.cell).get("fresh", {})})


def shares(lab: Path, out: Path, run: LabRun, step: int, is_fresh: bool) -> list[float]:
    """The share of right samples of each problem. The start's on fresh problems is the same for all runs of a start, task and seed."""
    folder = lab / run.cell.name
    config = read_config(folder)
    model = str(folder / "checkpoints" / checkpoint_name(step)) if step else config.policy.model
    if is_fresh and step == 0 and (known := of_the_start(out, run.cell)):
        return known
    if not is_fresh:
        found = evaluate_model(config, model)
    else:
        policy = load_policy(named(config, model))
        found = evaluate(policy, fresh_problems(config), evaluation_params(config), config.evals.num_samples, Stream(config.run.seed).at(stream="fresh eval"))
    return [one.num_right / found.num_samples for one in found.results]


def evaluation_params(config: RunConfig) -> SamplingParams:
    """How the run's own evaluations are drawn."""
    return SamplingParams(config.rollout.max_new_tokens, config.evals.temperature, config.evals.top_p, stop=config.rollout.stop)


def of_the_start(out: Path, cell: Cell) -> list[float] | None:
    for path in sorted(out.glob(f"{cell.start}-{cell.task.replace(':', '')}-*-seed-{cell.seed}.json")):
        if found := json.loads(path.read_text("utf-8")).get("fresh", {}).get("0"):
            return [float(one) for one in found]
    return None


def fresh_problems(config: RunConfig) -> PromptSet:
    """As many problems as are held out, in none of the run's sets; fewer where the task's level has no more. Raises PromptError where it has next to none."""
    sets = load_sets(config)
    taken = ids_of_forms(sets.train).union(*(ids_of_forms(one) for one in (sets.held_out, sets.aside) if one is not None))
    seed = Stream(config.run.seed).at(stream="fresh problems").seed() % 2**32
    for count in range(PROBLEMS, LEAST_PROBLEMS, -16):
        with suppress(PromptError):
            return in_template(mixture(str(config.prompts.task), count, seed, exclude=taken), training_template(config.prompts))
    return in_template(mixture(str(config.prompts.task), LEAST_PROBLEMS, seed, exclude=taken), training_template(config.prompts))


def keep(out: Path, cell: Cell, what: str, step: int, found: list[float]) -> None:
    """Add an evaluation to the run's file, whole or not at all."""
    known = read_measured(out, cell)
    known.setdefault(what, {})[str(step)] = found
    out.mkdir(parents=True, exist_ok=True)
    publish(out / f"{cell.name}.json", json.dumps(known).encode())
