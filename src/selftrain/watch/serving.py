"""Serve the page until Ctrl-C."""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable
from pathlib import Path

import uvicorn

from selftrain.errors import ConfigError
from selftrain.watch.runs import Runs
from selftrain.watch.security import Rules
from selftrain.watch.server import make_app


def serve(root: Path, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the runs in a folder; port 0 takes a free one. `ready` is called with the address, token included, when it can be opened.

    Raises RunFolderError when there is no such folder, ConfigError when the address cannot be had.
    """
    rules = Rules(host, secrets.token_urlsafe(18))
    runs = Runs(root)
    listener = listen(host, port)
    ending: list[bool] = []
    config = uvicorn.Config(
        make_app(runs, rules, lambda: bool(ending) or server.should_exit), log_level="error", access_log=False, server_header=False, timeout_graceful_shutdown=2
    )
    server = uvicorn.Server(config)
    name = f"[{host}]" if ":" in host else "localhost" if host in ("0.0.0.0", "::") else host
    ready(f"http://{name}:{listener.getsockname()[1]}/#token={rules.token}")
    try:
        server.run(sockets=[listener])
    finally:
        ending.append(True)
        listener.close()


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError that says what is in the way."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except (OSError, OverflowError, UnicodeError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or str(error)
        is_host = isinstance(error, socket.gaierror | UnicodeError) or getattr(error, "errno", None) == errno.EADDRNOTAVAIL
        do = "Give an address of this machine as --host, for example 127.0.0.1." if is_host else "Give another --port, or 0 for any free one."
        raise ConfigError(f"--host {host} --port {port}", f"the page cannot be served there ({why})", do) from error
    return listener
