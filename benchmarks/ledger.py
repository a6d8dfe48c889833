"""What writing the record costs: `python benchmarks/ledger.py [--folder FOLDER] [--share-of-step]`.

Appends groups of 512 completions and prints medians: milliseconds of an append, as the clock sees it and without waiting for the disk or for other
programs (processor time), processor time of reading the groups back and of verifying them; bytes on disk per completion. With --share-of-step it
trains the embedded model as by default, for 12 steps, and prints which share of the steps' wall time all writing of the record takes, fsync included.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.config_load import load_config, recipe
from selftrain.ledger import LedgerWriter, read, verify
from selftrain.run import start
from selftrain.train import StepReport
from selftrain.types import (
    Admission,
    AnswerKey,
    Answers,
    Completion,
    Finish,
    Group,
    Label,
    Message,
    Outcome,
    PolicyVersion,
    Prompt,
    Rewards,
    ScoredGroup,
    Vote,
    VotedGroup,
)

NUM_GROUPS, NUM_VOTES = 32, 16
REPEATS = 9


def scored_group(draw: random.Random, step: int, index: int, num_tokens: int) -> ScoredGroup:
    """A decided group of 16 completions with random tokens of about four characters each."""
    key = AnswerKey("12")
    completions = tuple(
        Completion(
            text="".join(draw.choices("0123456789 +=abc", k=num_tokens * 4)),
            token_ids=tuple(draw.choices(range(50_000), k=num_tokens)),
            logprobs=tuple(np.float32([-draw.expovariate(2) for _ in range(num_tokens)]).tolist()),
            token_ends=tuple(range(4, num_tokens * 4 + 1, 4)),
            entropies=tuple(np.float32([draw.expovariate(2) for _ in range(num_tokens)]).tolist()),
            finish=Finish.STOP,
            version=PolicyVersion(0, step),
        )
        for _ in range(NUM_VOTES)
    )
    prompt = Prompt(f"add/{index}", (Message("user", "What is 5 + 7? Think first, then write the answer in a box."),))
    rewards = tuple(float(at % 2) for at in range(NUM_VOTES))
    return ScoredGroup(
        voted=VotedGroup(
            Group(step, index, prompt, tuple(range(40)), completions),
            Answers(("12",) * NUM_VOTES, (key,) * NUM_VOTES),
            Vote(NUM_VOTES, NUM_VOTES, ((key, NUM_VOTES),)),
        ),
        label=Label(Outcome.DECIDED, (key,) * NUM_VOTES, "majority", f"vote 0:{step}"),
        rewards=Rewards(rewards, ("match",) * NUM_VOTES),
        kl_penalties=(),
        shaped_rewards=rewards,
        advantages=tuple(reward - 0.5 for reward in rewards),
        admission=Admission.ADMITTED,
        trained=tuple(range(NUM_VOTES)),
    )


def milliseconds(action: Callable[[], object]) -> tuple[float, float]:
    """How long a call takes: by the clock, and of the processor."""
    begin, begin_processor = time.perf_counter(), time.process_time()
    action()
    return (time.perf_counter() - begin) * 1000, (time.process_time() - begin_processor) * 1000


def measure(folder: Path, num_tokens: int) -> tuple[float, ...]:
    """The figures of one row of the table, from the third column on."""
    draw = random.Random(0)
    batches = [[scored_group(draw, step, index, num_tokens) for index in range(NUM_GROUPS)] for step in range(1, REPEATS + 1)]
    with LedgerWriter.create(folder, {"benchmark": "ledger"}) as writer:
        appends = [milliseconds(lambda step=step: writer.append_groups(step, batches[step - 1])) for step in range(1, REPEATS + 1)]
    ledger = read(folder)
    reads = [milliseconds(lambda step=step: ledger.groups(step)) for step in range(1, REPEATS + 1)]
    size = sum(path.stat().st_size for path in (folder / "ledger/segments").iterdir()) / REPEATS / NUM_GROUPS / NUM_VOTES
    clock, busy = (statistics.median(column) for column in zip(*appends, strict=True))
    return clock, busy, statistics.median(processor for _, processor in reads), milliseconds(lambda: verify(folder))[1] / REPEATS, size


WRITING = ("append_groups", "append_verdict", "append_step", "append_checkpoint", "record_timing")


def share_of_step(place: Path, num_steps: int = 12) -> tuple[float, float, float]:
    """(milliseconds of writing in a step and seconds of a step, medians; share of all steps' time that is writing) of the default run with the plain vote. Two
    steps warm up. A teacher's samples would add to both.
    """
    sections = {f"{section}.{name}": value for section, values in recipe("embedded").items() for name, value in values.items()}
    sections["labels.source"] = "majority"
    run = start(load_config((), {**sections, "run.folder": str(place), "run.num_steps": num_steps, "evals.num_problems": 8, "evals.num_samples": 2}))
    spent = [0.0]

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            begin = time.perf_counter()
            result = function(*args)
            spent[0] += time.perf_counter() - begin
            return result

        return call

    for name in WRITING:
        setattr(run.ledger, name, timed(getattr(run.ledger, name)))
    written, whole = [], []
    last = time.perf_counter()
    for event in run.events():
        now = time.perf_counter()
        if isinstance(event, StepReport):
            written.append(spent[0])
            whole.append(now - last)
        spent[0], last = 0.0, now
    return statistics.median(written[2:]) * 1000, statistics.median(whole[2:]), sum(written[2:]) / sum(whole[2:])


def main() -> None:
    """Measure both lengths and print the table, or the share of a step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="where to write; default: the system's temporary folder")
    parser.add_argument("--share-of-step", action="store_true", help="measure a default run with the plain vote instead")
    given = parser.parse_args()
    place = given.folder
    if given.share_of_step:
        with tempfile.TemporaryDirectory(dir=place) as folder:
            writing_ms, step_s, share = share_of_step(Path(folder))
        print(f"writing the record: {writing_ms:.1f} ms of a step of {step_s:.2f} s (medians), {100 * share:.2f} % of the time of the steps")
        return
    print("| completions | tokens each | append, ms | append, processor ms | read, processor ms | verify, processor ms | bytes per completion |")
    print("|---|---|---|---|---|---|---|")
    for num_tokens in (30, 300):
        with tempfile.TemporaryDirectory(dir=place) as folder:
            figures = measure(Path(folder) / "run", num_tokens)
        print(f"| {NUM_GROUPS * NUM_VOTES} | {num_tokens} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")


if __name__ == "__main__":
    main()
