"""The guard's laboratory: runs on the embedded models that collapse in different ways, and healthy ones among them.

    python benchmarks/guard_lab.py --folder runs/guard-lab --hours 1          # goes on where it was; several may share the folder, one thread each
    python benchmarks/guard_lab.py --folder runs/guard-lab --list             # what there is, and what became of it

Starts x tasks x learning rates x label sources x seeds, 80 steps of 16 prompts x 16 votes each, in an order in which every prefix is balanced. Each
run is an ordinary one whose guard only warns. It is evaluated on held-out problems at every tenth step, and its checkpoint of every fifth step is kept (weights
only), so that probes and guards of later versions can judge it without training again: `benchmarks/guard.py` does.

Most rates are those at which these small models collapse over tens of steps, as a large one does (docs/guard.md). At twice to five times these rates, in the
40-step runs of seed 20, they lose 5 points within the first ten steps: before a guard has seen the run's first steps and a window after them.

Half of the tasks (`FIT`) may be used to set thresholds; the others (`JUDGE`) are for the figures that are reported.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import Any

from guard_curves import points_of
from selftrain.config import RunConfig
from selftrain.config_load import load_config
from selftrain.ledger import read
from selftrain.ledger.storage import publish
from selftrain.run import resume, start

FIT = ("add:4", "digits:3", "add:3", "sort:2")
JUDGE = ("sub:2", "mul:2", "tall:1", "truth:2")
STEPS, EVERY, CHECKPOINT_EVERY = 80, 10, 5
PROBLEMS = 192


@dataclass(frozen=True)
class Cell:
    start: str
    task: str
    learning_rate: str
    source: str
    seed: int

    @property
    def name(self) -> str:
        return f"{self.start}-{self.task.replace(':', '')}-{self.source}-{self.learning_rate}-seed-{self.seed}"


# (source, learning rate): which way a run goes depends on the task, so each is made on all of them
WAYS = (
    ("majority", "1e-4"),
    ("inverted", "1e-5"),
    ("ema", "1e-4"),
    ("format_only", "5e-5"),
    ("reference", "5e-5"),
    ("inverted", "2e-5"),
    ("majority", "5e-5"),
    ("random", "5e-5"),
    ("frozen", "1e-4"),
    ("majority", "2e-4"),
)


def cells() -> Iterator[Cell]:
    """Seeds last, so that a laboratory that is stopped early has few seeds of everything; tasks of the two halves in turn."""
    tasks = [task for pair in zip(FIT, JUDGE, strict=True) for task in pair]
    for seed, (source, rate), task, begin in product(range(21, 33), WAYS, tasks, ("default", "weak")):
        yield Cell(begin, task, rate, source, seed)


def config_of(cell: Cell, folder: Path, warmup_steps: int | None = None) -> RunConfig:
    """warmup_steps: None for the product's own."""
    warmup = {} if warmup_steps is None else {"update.warmup_steps": warmup_steps}
    return load_config(
        [],
        {
            **warmup,
            "run.folder": str(folder),
            "run.name": cell.name,
            "run.seed": cell.seed,
            "run.num_steps": STEPS,
            "run.checkpoint_every_steps": CHECKPOINT_EVERY,
            "run.num_checkpoints": STEPS,
            "policy.model": f"embedded:{cell.start}",
            "policy.num_threads": 1,
            "prompts.task": cell.task,
            "prompts.count": 256,
            "rollout.prompts_per_step": 16,
            "labels.source": cell.source,
            "update.learning_rate": float(cell.learning_rate),
            "guard.action": "warn",
            "evals.num_problems": PROBLEMS,
            "evals.every_steps": EVERY,
        },
    )


def bare(config: RunConfig) -> RunConfig:
    """Without checkpoints and evaluations on the way, for what makes its own after single steps."""
    run_section = config.run.model_copy(update={"checkpoint_every_steps": config.run.num_steps})
    return config.model_copy(update={"run": run_section, "evals": config.evals.model_copy(update={"every_steps": None})})


def record_fit(folder: Path, ways: Sequence[str], seeds: Sequence[int], recorded: Callable[[Cell, Path], Any]) -> None:
    """A JSON file for each run of the limit-setting tasks that has none yet; several processes may share the folder. ways: `SOURCE=RATE` each.
    recorded: of a run, in a folder that is thrown away.
    """
    for seed, way, task, begin in product(seeds, ways, FIT, ("default", "weak")):
        source, _, rate = way.partition("=")
        cell = Cell(begin, task, rate, source, seed)
        path = folder / f"{cell.name}.json"
        with claimed(folder, cell.name) as mine, tempfile.TemporaryDirectory() as place:
            if mine and not path.exists():
                publish(path, json.dumps(recorded(cell, Path(place))).encode())
                print(cell.name, flush=True)


def done(folder: Path) -> bool:
    return (folder / "run.json").exists() and read(folder).finished


def record(config: RunConfig) -> None:
    """Do a run, or go on with it; then throw away what only a resumed run would need."""
    folder = Path(config.run.folder) / str(config.run.name)
    for _ in (resume(folder) if (folder / "run.json").exists() else start(config)).events():
        pass
    for file in (folder / "checkpoints").glob("*/optimizer*"):
        file.unlink()


@contextmanager
def claimed(folder: Path, name: str) -> Iterator[bool]:
    """Whether this run is this process's while the block lasts; False where another one works on it. The lock ends with its process, however that ends."""
    with (folder / f"{name}.claim").open("w") as place:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def wanted(cell: Cell, only: Sequence[str], seeds: Sequence[int]) -> bool:
    """Whether a cell is one of those that the command names."""
    kinds = ((cell.task, (*FIT, *JUDGE)), (cell.source, [source for source, _ in WAYS]), (cell.start, ("default", "weak")))
    return all(own in only for own, names in kinds if set(names) & set(only)) and (not seeds or cell.seed in seeds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=Path("runs/guard-lab"))
    parser.add_argument("--hours", type=float, default=1.0, help="start no further run after so long")
    parser.add_argument("--only", nargs="*", default=[], help="tasks, sources, starts; of each of these three none: all")
    parser.add_argument("--seeds", nargs="*", type=int, default=[], help="none: all")
    parser.add_argument("--warmup", type=int, default=None, help="update.warmup_steps; unset: the product's own. A folder of its own for each")
    parser.add_argument("--list", action="store_true", help="make nothing")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + 3600 * args.hours
    for cell in cells():
        if not wanted(cell, args.only, args.seeds):
            continue
        if not args.list and not done(args.folder / cell.name):
            if time.monotonic() > until:
                break
            with claimed(args.folder, cell.name) as mine:
                if mine and not done(args.folder / cell.name):
                    record(config_of(cell, args.folder, args.warmup))
        if done(args.folder / cell.name):
            print(f"{cell.name:44}", " ".join(f"{step}:{100 * fmean(one):.1f}" for step, one in points_of(args.folder / cell.name).items()), flush=True)


if __name__ == "__main__":
    main()
