"""How quick the live page's answers are on a large run that the ledger's writer has written.

python benchmarks/watch.py                            # 1,000 steps x 512 completions, each of the page's questions, first and second time
python benchmarks/watch.py --keep FOLDER --steps 200  # only make the run there
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from selftrain.admission import admit
from selftrain.advantage import ADVANTAGE_RULES
from selftrain.config import RunConfig
from selftrain.labels import LABEL_SOURCES, Bounds
from selftrain.ledger import LedgerWriter
from selftrain.metrics import measure
from selftrain.reward import REWARD_RULES, rewards_of
from selftrain.rollout import read_and_count
from selftrain.types import Action, Completion, Finding, Finish, Group, Message, PolicyVersion, Prompt, ScoredGroup, Verdict
from selftrain.watch import groups
from selftrain.watch.tail import RunTail

NUM_PROMPTS = 1024


def scored_group(step: int, index: int, num_votes: int, num_tokens: int, random: np.random.Generator) -> ScoredGroup:
    """A group with an addition; more of its completions agree as the steps go by."""
    number = (step * 16 + index) % NUM_PROMPTS
    right, version = number * 7 + 13, PolicyVersion(0, step)
    completions = []
    for draw in random.random(num_votes):
        answer = right if draw < 0.4 + step / 2500 else right + int(draw * 40)
        text = f"First {number} * 7 = {number * 7}. " + "Then I add 13 and carry. " * (num_tokens // 10) + f"So the answer is \\boxed{{{answer}}}."
        ends = tuple(np.linspace(1, len(text), num_tokens).astype(int).tolist())
        values = tuple((-random.random(num_tokens)).astype(np.float32).tolist())
        completions.append(Completion(text, tuple(range(num_tokens)), values, ends, tuple(-one for one in values), Finish.STOP, version))
    prompt = Prompt(f"sum/{number}", (Message("user", f"What is {number} * 7 + 13?"),))
    voted = read_and_count(Group(step, index, prompt, tuple(range(12)), tuple(completions)))
    label = LABEL_SOURCES["majority"]([voted], Bounds(0.0, 0.0))[0]
    rewards = rewards_of(voted, label, REWARD_RULES["match"])
    admission = admit(label, rewards.values)
    trained = tuple(range(num_votes)) if admission == "admitted" else ()
    advantages = ADVANTAGE_RULES["rloo"](rewards.values) if label.is_decided else ()
    return ScoredGroup(voted, label, rewards, (), rewards.values, tuple(advantages), admission, trained)


def write(folder: Path, steps: int, shape: tuple[int, int], num_tokens: int, finished: bool = True) -> None:
    """A run of `steps` steps of shape[0] groups x shape[1] completions."""
    config: dict[str, Any] = RunConfig().model_dump(mode="json")
    config["run"] |= {"num_steps": steps}
    config["prompts"] |= {"file": "made.jsonl"}
    config["labels"] |= {"source": "majority"}
    header = {
        "config": config,
        "class": "exact",
        "label_free": True,
        "truth_channels": [],
        "held_out": None,
        "selftrain_version": "made",
        "prompts": {"origin": "made", "count": NUM_PROMPTS, "hash": "0" * 64},
        "model_hash": "0" * 64,
    }
    random = np.random.Generator(np.random.Philox(key=7))
    with LedgerWriter.create(folder, header, {"started": "2026-01-01T00:00:00Z"}) as writer:
        for step in range(steps):
            scored = [scored_group(step, index, shape[1], num_tokens, random) for index in range(shape[0])]
            writer.append_groups(step, scored)
            warns = step > 0.9 * steps
            finding = Finding("constant_answer", 0.4 + step / 1e4, 0.35, 5, "different prompts get the same answer")
            writer.append_verdict(Verdict(step, Action.WARN if warns else Action.CONTINUE, (finding,) if warns else ()))
            writer.append_step(measure(step, PolicyVersion(0, step), scored), {})
        if finished:
            writer.append_end("done", "start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--votes", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=30)
    parser.add_argument("--keep", type=Path, help="write the run there and end")
    given = parser.parse_args()
    if given.keep:
        write(given.keep, given.steps, (given.prompts, given.votes), given.tokens)
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "large"
        write(folder, given.steps, (given.prompts, given.votes), given.tokens)
        print(f"{given.steps} steps x {given.prompts * given.votes} completions of {given.tokens} tokens")
        show(folder, given.steps)


def show(folder: Path, steps: int) -> None:
    tails: list[RunTail] = []
    timed("open the run (chain checked)", lambda: tails.append(RunTail("large", folder)))
    tail = tails[0]
    timed("index all groups", tail.index.catch_up)
    questions: dict[str, Callable[[], object]] = {
        "run page": tail.detail,
        "curves, 600 points": lambda: tail.curves(None, None, 600),
        "curves of 50 steps": lambda: tail.curves(steps // 2, steps // 2 + 50, 600),
        "newest groups": lambda: tail.index.search({}, set()),
        "label flips by margin": lambda: tail.index.search({"filters": ["flip"], "order": "margin"}, set()),
        "search for a text": lambda: tail.index.search({"text": "512 * 7"}, set()),
        "one group": lambda: groups.group(tail.ledger, 0, steps // 2, 3),
        "its completions": lambda: groups.completions(tail.ledger, (0, steps // 2, 3), None, 0, 50),
        "history of a prompt": lambda: tail.index.history("sum/512"),
        "look for new records": tail.advance,
    }
    for name, question in questions.items():
        timed(name, question)


def timed(name: str, question: Callable[[], object]) -> None:
    start = time.perf_counter()
    question()
    print(f"{name:32} {1000 * (time.perf_counter() - start):8.1f} ms")


if __name__ == "__main__":
    sys.exit(main())
