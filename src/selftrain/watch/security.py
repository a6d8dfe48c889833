"""Who may ask what: the checks before every answer, and the headers on every answer.

- Host must be a name of this server: a page elsewhere cannot reach it under a name of its own (DNS rebinding).
- A page of another site gets nothing from `/api`, whatever its method (Origin, Sec-Fetch-Site).
- On loopback anyone on this machine may read; on any other address reading needs the token too.
- Asking for something (POST) needs the token, in a header that no form and no foreign page can send.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

TOKEN_HEADER = "x-selftrain-token"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; manifest-src 'none'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "x-frame-options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Rules:
    """host: the address the server is bound to. token: what a person must have to ask for something."""

    host: str
    token: str

    @property
    def is_loopback(self) -> bool:
        return is_loopback(self.host)

    def fault(self, method: str, path: str, headers: Headers) -> tuple[int, str] | None:
        """Why a request is refused: status and words; None for one that may pass."""
        if not self._knows(headers.get("host", "")):
            return 421, "this server does not go by that name"
        if not path.startswith("/api/"):
            return None if method in ("GET", "HEAD") else (405, "only GET")
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in (None, "same-origin", "none") or (origin is not None and origin.partition("://")[2] != headers.get("host")):
            return 403, "a page of another site may not ask"
        has_token = hmac.compare_digest(headers.get(TOKEN_HEADER, "").encode(), self.token.encode())
        if method == "POST":
            if not has_token:
                return 403, "that needs the token: open the page by the link that `selftrain watch` printed"
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return 415, "send JSON"
            return None
        if method not in ("GET", "HEAD"):
            return 405, "only GET and POST"
        if not self.is_loopback and not has_token:
            return 401, "this address needs the token: open the page by the link that `selftrain watch` printed"
        return None

    def _knows(self, header: str) -> bool:
        """Whether a Host header names this server: its address or, bound to more than loopback, any address or a name of this machine."""
        name = header.rpartition(":")[0] if header.rpartition(":")[2].isdigit() else header
        name = name.strip("[]").lower()
        if name == "localhost" or name == self.host.lower():
            return True
        try:
            return ipaddress.ip_address(name).is_loopback or not self.is_loopback
        except ValueError:
            return not self.is_loopback and name in {socket.gethostname().lower(), socket.getfqdn().lower()}


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Gate:
    """ASGI middleware that applies the rules and adds the headers."""

    def __init__(self, app: ASGIApp, rules: Rules) -> None:
        self._app, self._rules = app, rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers["cache-control"] = "no-store" if scope["path"].startswith("/api/") else "no-cache"
            await send(message)

        fault = self._rules.fault(scope["method"], scope["path"], Headers(scope=scope))
        if fault is not None:
            await JSONResponse({"error": fault[1]}, status_code=fault[0])(scope, receive, with_headers)
        else:
            await self._app(scope, receive, with_headers)
