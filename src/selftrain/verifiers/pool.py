"""A pool of processes that check completions under limits of time and memory. Whatever a verifier does costs the completion it does it to, never the run.

A process that hangs is killed with everything it started, but for what moved into a session of its own; one that dies or whose memory ran out is replaced
before the next completion. No name for a failure says that an answer is wrong: `timed_out`, `crashed` (it raised or its process died), `out_of_memory`,
`no_score` (it gave something that is no score in [0, 1]). These limits hold mistakes in check, not malice: a process can read files and open connections like
the user who started it.
"""

from __future__ import annotations

import json
import os
import select
import selectors
import signal
import subprocess
import sys
import time
import warnings
import weakref
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import IO

from selftrain.errors import ConfigError
from selftrain.types import Check
from selftrain.verifiers import GYM, OUT_OF_MEMORY

START_LIMIT_S = 120.0
"""Starting a process, importing the verifier and making the tasks of reasoning-gym may take this long, on a machine that is busy."""
MAX_WORKERS = 8
MAX_REPLY_BYTES = 65536


@dataclass(frozen=True, slots=True)
class Limits:
    """timeout_s: wall time for one completion. memory_mib: address space of the process."""

    timeout_s: float
    memory_mib: int


class VerifierPool:
    """function: `package.module:function`, called with a Submission; or `gym`, the verifiers of reasoning-gym. tasks: of reasoning-gym, (name, level) each:
    a process makes them when it starts, so that no check pays for them.
    """

    def __init__(self, function: str, limits: Limits, num_workers: int | None = None, tasks: Sequence[tuple[str, int | None]] = ()) -> None:
        number = num_workers or min(MAX_WORKERS, os.cpu_count() or 1)
        self._function, self._has_warned = function, False
        self._workers = [Worker(function, limits, tasks) for _ in range(number)]
        self._finalizer = weakref.finalize(self, close, self._workers)

    def start(self) -> None:
        """Raises ConfigError when a process with these limits cannot even import the verifier."""
        self._workers[0].start()

    def checks(self, messages: Sequence[str]) -> list[Check]:
        """One check per message (a submission as JSON), in order."""
        if not messages:
            return []
        free: SimpleQueue[Worker] = SimpleQueue()
        for worker in self._workers:
            free.put(worker)

        def one(message: str) -> Check:
            worker = free.get()
            try:
                return worker.check(message)
            finally:
                free.put(worker)

        with ThreadPoolExecutor(min(len(self._workers), len(messages))) as executor:
            found = list(executor.map(one, messages))
        self._warn(found)
        return found

    def _warn(self, found: Sequence[Check]) -> None:
        """Say once what went wrong first, since the record names it in one word."""
        why = next((worker.first_failure for worker in self._workers if worker.first_failure), "")
        if why and not self._has_warned:
            self._has_warned = True
            number = sum(check.score is None for check in found)
            words = f"{given(self._function)}: {why}. {number} of {len(found)} submissions of this step have no score; the completions get 0."
            warnings.warn(words, RuntimeWarning, stacklevel=2)

    def close(self) -> None:
        """End all processes. Also done when the pool is gone."""
        self._finalizer()


def close(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()


def given(function: str) -> str:
    """What was given, for a message."""
    return "the verifier of reasoning-gym" if function == GYM else f"verifier.function = {function}"


def wait_for(pipe: IO[bytes], event: int, deadline: float) -> None:
    """Until something can be written to or read from a pipe. Raises TimeoutError. What fits into a pipe's buffer at once is written without blocking."""
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, event)
        if not selector.select(max(0.0, deadline - time.monotonic())):
            raise TimeoutError


def read_check(reply: Mapping[str, object]) -> Check:
    score = reply["score"]
    if score is None:
        return Check(None, str(reply["note"]))
    if not isinstance(score, float):
        raise ValueError(score)
    if not 0 <= score <= 1:
        return Check(None, "no_score")
    return Check(score, str(reply["note"]))


class Worker:
    """One process, started when it is needed."""

    def __init__(self, function: str, limits: Limits, tasks: Sequence[tuple[str, int | None]]) -> None:
        self._function, self._limits, self._tasks = function, limits, tasks
        self.first_failure = ""
        self._has_checked = False
        self._process: subprocess.Popen[bytes] | None = None

    def check(self, message: str) -> Check:
        """Where memory ran out beside what other completions had left in the process, a new one checks again: that is not this completion's doing."""
        has_others = self._has_checked
        found, why = self._tried(message)
        if found.note == OUT_OF_MEMORY and has_others:
            found, why = self._tried(message)
        self.first_failure = self.first_failure or why
        return found

    def _tried(self, message: str) -> tuple[Check, str]:
        """The check, and what went wrong. A process that hangs, died or has no memory left is ended: the next completion gets a new one."""
        try:
            self.start()
            reply = self._ask(message, self._limits.timeout_s)
            found, why, is_full = read_check(reply), str(reply["why"]), bool(reply["is_full"])
        except TimeoutError:
            self.kill()
            return Check(None, "timed_out"), f"a completion took longer than verifier.timeout_s = {self._limits.timeout_s:g}"
        except (ConfigError, OSError, EOFError, ValueError, KeyError, TypeError):
            self.kill()
            return Check(None, "crashed"), "its process ended"
        self._has_checked = True
        if is_full:
            self.kill()
        return found, why or ("its score is not in [0, 1]" if found.note == "no_score" else "")

    def start(self) -> None:
        """Start the process where there is none. Raises ConfigError when the verifier cannot be imported in it."""
        if self._process is not None:
            return
        environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", **os.environ, "PYTHONHASHSEED": "0"}
        environment["PYTHONPATH"] = os.pathsep.join(path or os.getcwd() for path in sys.path)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "selftrain.verifiers.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,
            bufsize=0,
        )
        first = {"function": self._function, "memory_mib": self._limits.memory_mib, "timeout_s": self._limits.timeout_s, "tasks": self._tasks}
        why = f"its process did not start within {START_LIMIT_S:.0f} s"
        try:
            why = str(self._ask(json.dumps(first), START_LIMIT_S)["why"])
        except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
            why = why if isinstance(error, TimeoutError) else f"its process ended while it was imported under verifier.memory_mib = {self._limits.memory_mib}"
        if why:
            self.kill()
            mend = "See whether `import reasoning_gym` works" if self._function == GYM else "Mend the function"
            raise ConfigError(given(self._function), why, f"{mend}, or raise --verifier.memory-mib where memory ran out.")

    def _ask(self, message: str, limit_s: float) -> dict[str, object]:
        """The reply to one line. Raises TimeoutError, EOFError when the process died, OSError, ValueError for a reply that is none."""
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        deadline = time.monotonic() + limit_s
        unsent, data = memoryview(message.encode() + b"\n"), b""
        while unsent:
            wait_for(process.stdin, selectors.EVENT_WRITE, deadline)
            unsent = unsent[os.write(process.stdin.fileno(), unsent[: select.PIPE_BUF]) :]
        while not data.endswith(b"\n"):
            wait_for(process.stdout, selectors.EVENT_READ, deadline)
            part = os.read(process.stdout.fileno(), MAX_REPLY_BYTES)
            if not part or len(data) > MAX_REPLY_BYTES:
                raise EOFError
            data += part
        reply = json.loads(data)
        if not isinstance(reply, dict):
            raise ValueError(reply)
        return reply

    def kill(self) -> None:
        """End the process and everything it started, but for what moved into a session of its own."""
        process, self._process, self._has_checked = self._process, None, False
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()
