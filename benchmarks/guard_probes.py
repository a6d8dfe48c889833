"""Probes of the present version at the kept checkpoints of recorded runs, in place of the recorded ones: a changed probe is judged without training again.

A probe of step s is on s updates, so it is taken of the checkpoint of s steps, and of the start at step 0; where no checkpoint was kept neither a probe nor a
glance is made. The last step's is taken of the last weights, which are one update on. A file per run is written beside the judgement.

Runs that were recorded before the support was known (`SUPPORT`) can be given that alone, beside the probes and glances that they have.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from guard_lab import Cell, done
from selftrain.checkpoints import checkpoint_name
from selftrain.compose import load_policy, load_sets
from selftrain.compose_probes import make_prober
from selftrain.config import ProbesSection, RunConfig
from selftrain.evaluate_model import named
from selftrain.guard.doubts import SUPPORT, is_probed
from selftrain.guard_stream import Step
from selftrain.ledger.storage import publish
from selftrain.policies.base import Policy
from selftrain.run import read_config
from selftrain.types import PolicyVersion, StepMetrics

Probes = Mapping[int, Mapping[str, float]]
"""step -> signals"""


def probe_missing(lab: Path, out: Path, hours: float, cells: Sequence[Cell], section: ProbesSection, only_support: bool = False) -> None:
    """Make the file of every finished run of these that has none; begin nothing after so many hours."""
    until = time.monotonic() + 3600 * hours
    out.mkdir(parents=True, exist_ok=True)
    for cell in cells:
        if not (out / f"{cell.name}.json").exists() and done(lab / cell.name) and time.monotonic() < until:
            found = probes_of(lab / cell.name, section)
            if only_support:
                found = {step: {key: value for key, value in values.items() if key.startswith("support/")} for step, values in found.items()}
            publish(out / f"{cell.name}.json", json.dumps(found).encode())
            print(cell.name, " ".join(f"{step}:{values[SUPPORT]:.3f}" for step, values in found.items() if SUPPORT in values), flush=True)


def probes_of(folder: Path, section: ProbesSection) -> Probes:
    """The signals of the start and of the kept checkpoints, where a probe or a glance is due."""
    config = read_config(folder).model_copy(update={"probes": section})
    start = load_policy(config)
    prober = make_prober(config, load_sets(config).aside, start)
    found = {}
    for step in range(config.run.num_steps):
        if (policy := policy_at(folder, config, step, start)) is not None and (values := prober(policy, step, 0).values):
            found[step] = dict(values)
    return found


def policy_at(folder: Path, config: RunConfig, step: int, start: Policy) -> Policy | None:
    """The policy after so many steps, with the run's start as its reference; None where no checkpoint was kept."""
    if step == 0:
        return start
    path = folder / "checkpoints" / checkpoint_name(step if step < config.run.num_steps - 1 else config.run.num_steps)
    if not path.exists():
        return None
    policy = load_policy(named(config, str(path)))
    policy._version = PolicyVersion(0, step)  # type: ignore[attr-defined]  # to `load` needs the optimizer's moments, which are thrown away
    policy.reference_logprobs = start.logprobs  # type: ignore[method-assign]
    return policy


def read_probes(folder: Path, cell: Cell) -> Probes:
    """Empty where none were made."""
    path = folder / f"{cell.name}.json"
    return {int(step): values for step, values in json.loads(path.read_text("utf-8")).items()} if path.exists() else {}


def with_probes(steps: Sequence[Step], probes: Probes) -> tuple[Step, ...]:
    """The steps with these probes in place of their own, or with these supports beside them; as they are without any."""
    if not probes:
        return tuple(steps)
    replaced = ("support/", "probe/", "glance/") if any(map(is_probed, probes.values())) else ("support/",)

    def swapped(metrics: StepMetrics) -> StepMetrics:
        own = {key: value for key, value in metrics.values.items() if not key.startswith(replaced)}
        return replace(metrics, values={**own, **probes.get(metrics.step, {})})

    return tuple(replace(one, metrics=swapped(one.metrics), learned=one.learned and swapped(one.learned)) for one in steps)
