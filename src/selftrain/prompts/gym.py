"""Problems of reasoning-gym: every task by name and level (extra `gym`).

    gym = load_gym("gym:knights_knaves:2", count=64, seed=7)
    gym.prompts                                  # a PromptSet; true answers in its sheet, where the task has one
    gym.scores([(prompt_id, "Zoey is a knight, ...")])    # [1.0], decided by the task's own verifier

LEVEL counts from 0 and is the place in the lists of the task's curriculum: all attributes are set to it, an attribute with fewer levels to its
last; an attribute that is a range reaches from its easiest value up to the level's. Without LEVEL the task's default settings are used.

The library runs in a child process, for three reasons: some tasks depend on the order of Python sets, so the child fixes the hash seed and the
same arguments give the same problems in every process; some set the global generator; and some verifiers parse what a model wrote.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

from selftrain.errors import MissingExtraError, PromptError
from selftrain.seeds import Stream
from selftrain.types import AnswerSheet, Message, Prompt, PromptSet

MAKE_LIMIT_S = 900.0
"""Making a set of problems may take this long."""
SCORE_LIMIT_S = 5.0
"""Checking one answer may take this long."""
START_LIMIT_S = 300.0
"""Starting the child process may take this long, on a machine that is busy."""


@dataclass(frozen=True, slots=True)
class GymProblems:
    """Problems of one or several tasks with what their verifiers need. `entries`: by prompt id, read by the child process only."""

    prompts: PromptSet
    entries: Mapping[str, Mapping[str, Any]] = field(repr=False)

    def scores(self, answers: Sequence[tuple[str, str]], limit_s: float = SCORE_LIMIT_S) -> list[float | None]:
        """The verifier's score in [0, 1] of each (prompt id, answer text); 1 is right.

        None where the verifier broke or took longer than `limit_s` seconds: undecided, not wrong. KeyError for an unknown prompt id.
        """
        checks = [{**self.entries[prompt_id], "answer": answer} for prompt_id, answer in answers]
        scores: list[float | None] = []
        while len(scores) < len(checks):
            request = {"do": "score", "checks": checks[len(scores) :], "limit_s": limit_s}
            lines, _ = _child(request, START_LIMIT_S + limit_s * len(checks))
            scores += [line["score"] for line in lines]
            if len(scores) < len(checks):
                scores.append(None)
        return scores

    def check(self, prompt_id: str, answer: str, limit_s: float = SCORE_LIMIT_S) -> bool | None:
        """Whether an answer is fully right; None where the verifier broke or took too long. For many answers `scores` is far quicker."""
        score = self.scores([(prompt_id, answer)], limit_s)[0]
        return None if score is None else score >= 1


def load_gym(names: str, count: int, seed: int, exclude: Collection[str] = ()) -> GymProblems:
    """`count` distinct problems of `gym:NAME` or `gym:NAME:LEVEL`, none with an id in `exclude`, at whatever level; only as many as needed are made.

    Several tasks, separated by commas, give equal parts in turn. A prompt's id is `gym-NAME-LEVEL/HASH`, the hash of its text in
    lower case and with single spaces: what `check_disjoint` takes for the same has the same hash.
    MissingExtraError without reasoning-gym; PromptError for a name or level that does not exist, for a task that cannot make so many distinct
    problems, that breaks, or that takes longer than 15 minutes.
    """
    if importlib.util.find_spec("reasoning_gym") is None:
        raise MissingExtraError(f"task {names}", "the package reasoning-gym is not installed", "run: pip install 'selftrain[gym]'")
    parts = [part.strip() for part in names.split(",")]
    counts = [count // len(parts) + (place < count % len(parts)) for place in range(len(parts))]
    made = _problems(parts, counts, seed, exclude)
    problems = [problem for turn in zip_longest(*made) for problem in turn if problem is not None]
    prompts = tuple(Prompt(problem["id"], (Message("user", problem["question"]),)) for problem in problems)
    sheet = AnswerSheet({problem["id"]: problem["answer"] for problem in problems if problem["answer"] is not None})
    entries = {problem["id"]: {key: problem[key] for key in ("task", "level", "entry")} for problem in problems}
    return GymProblems(PromptSet(prompts, sheet, f"task {names} seed {seed}"), entries)


def _problems(parts: list[str], counts: list[int], seed: int, exclude: Collection[str]) -> list[list[dict[str, Any]]]:
    """What the child process wrote for each part."""
    orders = []
    for (name, level), count in zip(map(_parsed, parts), counts, strict=True):
        task_seed = Stream(seed).at(stream="gym", prompt_id=f"{name}:{level}").seed() % 2**31
        orders.append({"task": name, "level": level, "count": count, "seed": task_seed})
    given = f"task {','.join(parts)}"
    try:
        lines, ending = _child({"do": "make", "orders": orders, "exclude": sorted(exclude)}, MAKE_LIMIT_S)
    except subprocess.TimeoutExpired as error:
        why = f"{sum(counts)} problems took longer than {MAKE_LIMIT_S:.0f} s"
        raise PromptError(given, why, "ask for fewer problems or an easier level") from error
    if lines and "why" in lines[-1]:
        raise PromptError(given, lines[-1]["why"], lines[-1]["do"])
    if len(lines) != sum(counts):
        raise PromptError(given, f"reasoning-gym broke after {len(lines)} problems: {ending}", "take another level or another task")
    return [[{**order, **line} for line in lines if line["order"] == place] for place, order in enumerate(orders)]


def _parsed(part: str) -> tuple[str, int | None]:
    """The name and level of gym:NAME or gym:NAME:LEVEL."""
    kind, _, rest = part.partition(":")
    name, _, level = rest.partition(":")
    if kind != "gym" or not name or (rest != name and not (level.isascii() and level.isdigit())):
        do = "write for example gym:knights_knaves:2, several with commas; built-in tasks cannot be among them"
        raise PromptError(f"task {part!r}", "a reasoning-gym task is gym:NAME or gym:NAME:LEVEL", do)
    return name, int(level) if level else None


def _child(request: Mapping[str, Any], limit_s: float) -> tuple[list[dict[str, Any]], str]:
    """The lines that the child process wrote before it ended, and how it ended, in words."""
    done = subprocess.run(
        [sys.executable, "-m", "selftrain.prompts.gym_child"],
        input=json.dumps(request).encode(),
        capture_output=True,
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        timeout=limit_s,
        check=False,
    )
    complete = done.stdout[: done.stdout.rfind(b"\n") + 1]
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return [json.loads(line) for line in complete.splitlines()], said[-1] if said else f"exit status {done.returncode}"
