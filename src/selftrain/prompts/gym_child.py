"""The child process of gym.py: one JSON request on stdin, one JSON line on stdout per problem or score, as soon as it is there.

It holds the only import of reasoning_gym. It is killed by its own alarm when one answer takes too long, and by the memory limit; what was
written by then counts.
"""

from __future__ import annotations

import base64
import difflib
import json
import os
import pickle
import random
import resource
import signal
import sys
from typing import Any, TextIO

from selftrain.prompts.identity import content_id
from selftrain.types import Message

MEMORY_LIMIT_BYTES = 16 * 2**30
_TRIES_PER_PROBLEM = 20
_EXTRA_TRIES = 200


class Refused(Exception):
    """What was asked for cannot be made: why, and what to do."""


def main() -> None:
    """Do what the request on stdin says. Whatever libraries print goes to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _limit_memory()
    request = json.load(sys.stdin)
    try:
        if request["do"] == "make":
            _make(request, out)
        else:
            _score(request, out)
    except Refused as refusal:
        why, do = refusal.args
        _write(out, {"why": why, "do": do})


def _make(request: dict[str, Any], out: TextIO) -> None:
    """The problems of each order, all texts distinct up to case and white space: a level holds the problems of those below it too."""
    taken = {one.rpartition("/")[2] for one in request["exclude"]}
    for place, order in enumerate(request["orders"]):
        name, level, count = order["task"], order["level"], order["count"]
        tries = count * _TRIES_PER_PROBLEM + _EXTRA_TRIES
        dataset = make_dataset(name, level, order["seed"], tries)
        random.seed(order["seed"])  # codeio runs snippets that draw from the global generator
        made = 0
        for index in range(tries):
            if made == count:
                break
            entry = dataset[index]
            text_id = content_id((Message("user", " ".join(entry["question"].split()).casefold()),))
            if text_id in taken:
                continue
            taken.add(text_id)
            made += 1
            prompt_id = f"gym-{name}-{'default' if level is None else level}/{text_id}"
            blob = base64.b64encode(pickle.dumps(entry)).decode()
            _write(out, {"order": place, "id": prompt_id, "question": entry["question"], "answer": entry["answer"], "entry": blob})
        if made < count:
            raise Refused(f"{tries} tries at {name} gave {made} distinct problems, {count} were asked for", "ask for fewer problems or take a higher level")


def _score(request: dict[str, Any], out: TextIO) -> None:
    """One score per check. The alarm's default action ends the process, also inside C code."""
    datasets: dict[tuple[str, int | None], Any] = {}
    for check in request["checks"]:
        task = (check["task"], check["level"])
        if task not in datasets:
            datasets[task] = make_dataset(*task, seed=0, size=1)
        signal.setitimer(signal.ITIMER_REAL, request["limit_s"])
        try:
            score = float(datasets[task].score_answer(check["answer"], pickle.loads(base64.b64decode(check["entry"]))))
        except Exception:  # noqa: BLE001 - a verifier of others broke on this answer: undecided
            score = None
        signal.setitimer(signal.ITIMER_REAL, 0)
        _write(out, {"score": score})


def make_dataset(name: str, level: int | None, seed: int, size: int) -> Any:
    from reasoning_gym import factory

    if name not in factory.DATASETS or name == "composite":
        names = sorted(set(factory.DATASETS) - {"composite"})
        near = difflib.get_close_matches(name, names, n=3, cutoff=0.0)
        raise Refused(f"reasoning-gym has no task {name!r}; it has {len(names)}", f"the nearest names are {', '.join(near)}")
    if level is None:
        return factory.create_dataset(name, seed=seed, size=size)
    if not factory.has_curriculum(name):
        raise Refused(f"reasoning-gym has no levels for {name}", f"write gym:{name}, without a level")
    curriculum = factory.create_curriculum(name)
    num_levels = max((len(attribute.levels) for attribute in curriculum.attributes.values()), default=1)
    if level >= num_levels:
        raise Refused(f"{name} has levels 0 to {num_levels - 1}", "give a level in this range")
    curriculum.set_global_level(level)
    try:
        return factory.DATASETS[name][0](config=curriculum.generate_configuration({"seed": seed, "size": size}))
    except (AssertionError, ValueError) as error:
        raise Refused(f"reasoning-gym refuses what its own curriculum says of level {level}: {error}", "take another level, or none") from error


def _limit_memory() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_AS)
    least = MEMORY_LIMIT_BYTES if most == resource.RLIM_INFINITY else min(MEMORY_LIMIT_BYTES, most)
    resource.setrlimit(resource.RLIMIT_AS, (least, most))


def _write(out: TextIO, line: dict[str, Any]) -> None:
    out.write(json.dumps(line) + "\n")
    out.flush()


if __name__ == "__main__":
    main()
