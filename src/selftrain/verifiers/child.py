"""The process of pool.py: one JSON line on stdin, one on stdout, for the start and then for each completion.

It limits its own memory before it imports the verifier. The verifier sees neither pipe: it reads from nothing and prints to nothing. A process that it forks
ends where it returns, and answers nothing. Where memory ran out it says `is_full`, and the parent replaces it. Should the parent be gone while it hangs, its
own alarm ends it.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import signal
from collections.abc import Callable, Sequence
from decimal import Decimal
from numbers import Real
from typing import Any, TextIO

from selftrain.types import Submission
from selftrain.verifiers import GYM, OUT_OF_MEMORY

ALARM_AFTER_S = 5.0
"""how much longer than the parent's limit"""
MOST_WORDS = 300
"""characters of what an exception says"""

Verifier = Callable[[Submission, Any], Any]


def main() -> None:
    own = os.getpid()
    requests, replies = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    first = json.loads(requests.readline())
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (first["memory_mib"] * 2**20,) * 2)
    verifier: Verifier | None = None
    why = ""
    try:
        verifier = imported(first["function"], first["tasks"])
    except BaseException as error:  # noqa: BLE001 - whatever the module of the user's raises
        why = f"it cannot be imported in its process under verifier.memory_mib = {first['memory_mib']} ({type(error).__name__}: {error})"
    if os.getpid() != own:
        return  # forked by the module: it shares the pipes, and must take no request
    say(replies, {"why": why})
    if verifier is None:
        return
    room = room_left()
    for line in requests:
        signal.setitimer(signal.ITIMER_REAL, first["timeout_s"] + ALARM_AFTER_S)
        score, note, why = checked(verifier, line, first["memory_mib"])
        if os.getpid() != own:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        is_full = note == OUT_OF_MEMORY or (score is None and room_left() < room / 2)
        say(replies, {"score": score, "note": note, "why": why, "is_full": is_full})


def say(replies: TextIO, value: Any) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


def room_left() -> float:
    """Bytes of address space below the limit. Libraries that meet it raise errors of their own, and a verifier may catch MemoryError and keep what it has."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return resource.getrlimit(resource.RLIMIT_AS)[0] - int(file.read().split()[0]) * resource.getpagesize()
    except MemoryError:
        return 0.0
    except OSError:  # no Linux
        return float("inf")


def imported(name: str, tasks: Sequence[tuple[str, int | None]]) -> Verifier:
    """The verifier with all that it needs in memory. tasks: of reasoning-gym, (name, level) each, that it will be asked about."""
    if name == GYM:
        from selftrain.verifiers import gym

        for task, level in tasks:
            gym.task(task, level)
        return gym.score
    module, _, attribute = name.partition(":")
    function = getattr(importlib.import_module(module), attribute)
    return lambda submission, _: function(submission)


def checked(verifier: Verifier, line: str, memory_mib: int) -> tuple[float | None, str, str]:
    """The score, its name and "" ; no score, and why, where the verifier gave none: one word for the record, and what happened for a person."""
    try:
        request = json.loads(line)
        value = verifier(Submission(**request["submission"]), request["entry"])
        score = score_of(value)
    except MemoryError:
        return None, OUT_OF_MEMORY, f"a completion needed more memory than verifier.memory_mib = {memory_mib}"
    except BaseException as error:  # noqa: BLE001 - it costs this completion; sys.exit() too
        return None, "crashed", f"it raised {type(error).__name__}: {said(error, str)}"[:MOST_WORDS]
    if score is None:
        return None, "no_score", f"it returned {said(value, repr)}, and a score is a bool or a number that float() finds in [0, 1]"[:MOST_WORDS]
    return score, "verified" if score == 1 else "refuted" if score == 0 else "partly_verified", ""


def said(value: Any, how: Callable[[Any], str]) -> str:
    """Words for a value, whatever its own ways to say it do."""
    try:
        return how(value)
    except BaseException:  # noqa: BLE001 - it is the user's object
        return f"a {type(value).__name__}"


def score_of(value: Any) -> float | None:
    """A bool or a number in [0, 1], those of numpy and torch too; None for everything else."""
    if getattr(value, "ndim", None) == 0 and callable(getattr(value, "item", None)):
        value = value.item()
    if not isinstance(value, Real | Decimal):
        return None
    try:
        score = float(value)  # what is compared is what is given: the object's own comparisons may say anything
    except (OverflowError, TypeError, ValueError):
        return None
    return score if 0 <= score <= 1 else None


if __name__ == "__main__":
    main()
