"""The process of pool.py: one JSON line on stdin, one on stdout, for the start and then for each completion.

It limits its own memory before it imports the verifier. The verifier sees neither pipe: it reads from nothing and prints to nothing. A process that it forks
ends where it returns, and answers nothing. Should the parent be gone while it hangs, its own alarm ends it.
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
from selftrain.verifiers import GYM

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
    for line in requests:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, first["timeout_s"] + ALARM_AFTER_S)
        score, note, why = checked(verifier, Submission(**request["submission"]), request["entry"])
        if os.getpid() != own:
            return
        signal.setitimer(signal.ITIMER_REAL, 0)
        say(replies, {"score": score, "note": note, "why": why})


def say(replies: TextIO, value: Any) -> None:
    replies.write(json.dumps(value) + "\n")
    replies.flush()


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


def checked(verifier: Verifier, submission: Submission, entry: Any) -> tuple[float | None, str, str]:
    """The score, its name and "" ; no score, and why, where the verifier gave none: one word for the record, and what happened for a person."""
    try:
        value = verifier(submission, entry)
        score = score_of(value)
    except MemoryError:
        return None, "out_of_memory", ""
    except BaseException as error:  # noqa: BLE001 - it costs this completion; sys.exit() too
        return None, "crashed", f"it raised {type(error).__name__}: {said(error, str)}"[:MOST_WORDS]
    if score is None:
        return None, "no_score", f"it returned {said(value, repr)}, and a score is a bool or a number in [0, 1]"[:MOST_WORDS]
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
    if isinstance(value, Decimal) and not value.is_finite():
        return None
    is_score: bool = isinstance(value, Real | Decimal) and 0 <= value <= 1  # type: ignore[operator]
    return float(value) if is_score else None


if __name__ == "__main__":
    main()
