"""Options, what is collected (browser tests only where they are asked for), and runs that many tests read."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.recorded import RecordedRuns

MEMORY = Path("/dev/shm")
ROOM_BYTES = 2**30
"""a whole suite needs 136 MiB at most, since folders of passed tests are removed at once"""


def pytest_configure() -> None:
    """Temporary folders lie in memory where there is room: a run syncs a hundred files, and no test cuts the power.

    Ctrl-C ends what is tested even where a shell started the tests in the background, for which it sets the signal to be ignored.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if MEMORY.is_dir() and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free >= ROOM_BYTES:
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--screenshots", action="store_true", help="keep the pictures that the browser tests take in docs/img")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """They need a browser and selenium: `make test-browser`."""
    return True if collection_path.name == "browser" and "browser" not in str(config.option.markexpr) else None


@pytest.fixture(scope="session")
def recorded_run(tmp_path_factory: pytest.TempPathFactory) -> RecordedRuns:
    return RecordedRuns(tmp_path_factory.mktemp("recorded"))


@pytest.fixture
def keeps_pictures(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--screenshots"))
