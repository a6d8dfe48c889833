"""The addresses of the page and the stream of changes. What a run is named is looked up, never joined to a path."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from selftrain import control
from selftrain.errors import SelftrainError
from selftrain.watch import groups
from selftrain.watch.runs import Runs
from selftrain.watch.security import Gate, Rules
from selftrain.watch.series import MAX_POINTS
from selftrain.watch.tail import RunTail

POLL_S = 0.4
"""how often a stream looks for new records"""
BEAT_S = 15.0
"""how often a quiet stream says that it is alive"""
MAX_BODY = 16 * 1024
MAX_ROWS = 200
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml", "txt": "text/plain"}


def make_app(runs: Runs, rules: Rules, closing: Callable[[], bool] = lambda: False) -> Starlette:
    """The application. closing: whether the server is about to end, so that streams end too."""
    server = Server(runs, rules, closing)
    files = static_files()

    def static(request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        if name not in files:
            raise HTTPException(404, "there is no such page")
        return Response(files[name], media_type=TYPES[name.rpartition(".")[2]])

    routes = [
        Route("/api/runs", server.runs),
        Route("/api/run", server.run),
        Route("/api/series", server.series),
        Route("/api/groups", server.groups),
        Route("/api/group", server.group),
        Route("/api/completions", server.completions),
        Route("/api/history", server.history),
        Route("/api/prompts", server.prompts),
        Route("/api/example", server.example),
        Route("/api/events", server.events),
        Route("/api/requests", server.ask, methods=["POST"]),
        Route("/", static),
        Route("/{name:path}", static),
    ]
    handlers: dict[Any, Any] = {HTTPException: refused, SelftrainError: failed}
    return Starlette(routes=routes, middleware=[Middleware(Gate, rules=rules)], exception_handlers=handlers)


def static_files() -> dict[str, bytes]:
    """Every file of the page by its name in the address: nothing else can be asked for."""
    root = resources.files("selftrain.watch") / "static"
    found = {f"{folder}{one.name}": one.read_bytes() for folder, part in (("", root), ("vendor/", root / "vendor")) for one in part.iterdir() if one.is_file()}
    return {name: data for name, data in found.items() if name.rpartition(".")[2] in TYPES}


def refused(request: Request, error: HTTPException) -> Response:  # noqa: ARG001
    return JSONResponse({"error": error.detail}, status_code=error.status_code)


def failed(request: Request, error: SelftrainError) -> Response:  # noqa: ARG001
    return JSONResponse({"error": f"{error.given}: {error.why}", "do": error.do}, status_code=500 if error.exit_status == 1 else 400)


def number(request: Request, name: str, default: int | None = None, most: int = 10**9) -> int:
    """A whole number of the address, from 0 on; without a default it must be there."""
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 10:
        raise HTTPException(400, f"{name} must be a whole number")
    return min(int(text), most)


def read_ahead(tail: RunTail) -> None:
    """Index the groups, which are asked for next. What is damaged in them is said to who asks for them."""
    with suppress(SelftrainError):
        tail.index.catch_up()


def maybe(request: Request, name: str) -> int | None:
    return number(request, name) if name in request.query_params else None


class Server:
    """What each address answers; plain functions run in threads, so reading a file holds up nobody."""

    def __init__(self, runs: Runs, rules: Rules, closing: Callable[[], bool]) -> None:
        self._runs, self._rules, self._closing = runs, rules, closing

    def _tail(self, request: Request) -> RunTail:
        try:
            return self._runs.tail(request.query_params.get("run", ""))
        except KeyError as error:
            raise HTTPException(404, "there is no such run") from error

    def runs(self, request: Request) -> Response:  # noqa: ARG002
        return answer({"root": self._runs.root.resolve().name, "single": self._runs.single, "runs": self._runs.summaries()})

    def run(self, request: Request) -> Response:
        tail = self._tail(request)
        found = answer(tail.detail())
        found.background = BackgroundTask(read_ahead, tail)
        return found

    def series(self, request: Request) -> Response:
        points = number(request, "points", MAX_POINTS, most=5000)
        return answer(self._tail(request).curves(maybe(request, "first"), maybe(request, "last"), max(points, 10)))

    def groups(self, request: Request) -> Response:
        tail, query = self._tail(request), request.query_params
        filters = [name for name in query.get("filters", "").split(",") if name]
        unknown = sorted(set(filters) - {*groups.FILTERS, "finding"})
        if unknown or query.get("order", "newest") not in groups.ORDERS:
            raise HTTPException(400, f"there is no filter or order {', '.join(unknown) or query['order']}")
        wanted = {name: maybe(request, name) for name in ("step", "branch", "until")}
        place = {"offset": number(request, "offset", 0), "limit": number(request, "limit", 50, most=MAX_ROWS)}
        found = {(one["branch"], one["step"]) for one in tail.verdicts if one["findings"]}
        text = {"text": query.get("text", "")[:500], "order": query.get("order"), "filters": filters, "rolled_back": "rolled_back" in query}
        return answer(tail.index.search(wanted | place | text, found))

    def group(self, request: Request) -> Response:
        tail = self._tail(request)
        found = groups.group(tail.ledger, number(request, "branch"), number(request, "step"), number(request, "index"))
        if found is None:
            raise HTTPException(404, "there is no such group")
        return answer(found | {"history": tail.index.history(found["prompt_id"])})

    def completions(self, request: Request) -> Response:
        tail = self._tail(request)
        place = (number(request, "branch"), number(request, "step"), number(request, "index"))
        page = (number(request, "offset", 0), number(request, "limit", 50, most=MAX_ROWS))
        return answer(groups.completions(tail.ledger, place, request.query_params.get("cluster"), *page))

    def history(self, request: Request) -> Response:
        return answer({"visits": self._tail(request).index.history(request.query_params.get("prompt", ""))})

    def prompts(self, request: Request) -> Response:
        found = self._tail(request).index.prompts(request.query_params.get("text", "")[:500], number(request, "limit", 50, most=MAX_ROWS))
        return answer(found)

    def example(self, request: Request) -> Response:
        try:
            return answer(self._tail(request).example(request.query_params.get("name", ""), request.query_params.get("prompt")))
        except KeyError as error:
            raise HTTPException(404, "there is no such evaluation") from error

    async def ask(self, request: Request) -> Response:
        """Write a request into the run folder; the loop takes it up between two steps."""
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY:
                raise HTTPException(413, "too long")
        try:
            values = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, "it is not JSON") from error
        if not isinstance(values, dict) or not all(isinstance(one, str) for one in values.values()):
            raise HTTPException(400, "send an object of texts")
        tail = await run_in_threadpool(self._tail, request)
        if tail.end:
            raise HTTPException(409, "the run has ended")
        given = (values.get("action", ""), values.get("who", "").strip() or "somebody at the page", values.get("reason", "").strip())
        made = await run_in_threadpool(control.ask, tail.folder, *given, values.get("checkpoint"))
        return JSONResponse({"number": made.number, "action": made.action}, status_code=202)

    async def events(self, request: Request) -> Response:
        """Server-sent events: with a run its changes after record `seq`, without one the list of runs whenever it differs."""
        if "run" in request.query_params:
            tail = await run_in_threadpool(self._tail, request)
            stream = self._changes(tail, number(request, "seq", 0), number(request, "generation", 0))
        else:
            stream = self._lists()
        return StreamingResponse(stream, media_type="text/event-stream", headers={"x-accel-buffering": "no"})

    async def _changes(self, tail: RunTail, seq: int, generation: int) -> AsyncIterator[str]:
        quiet, before = 0.0, ""
        while not self._closing():
            try:
                seen = await run_in_threadpool(tail.advance)
                if generation != tail.generation or seq > seen:
                    yield event("reload", {})
                    return
                stamp = f"{await run_in_threadpool(tail.state_name)} {len(await run_in_threadpool(tail.evaluations))}"
                change = await run_in_threadpool(tail.changes, seq) if seen > seq or stamp != before else None
            except SelftrainError as error:
                yield event("failed", {"error": f"{error.given}: {error.why}"})
                return
            if change is not None:
                yield event("change", change)
                seq, before, quiet = seen, stamp, 0.0
            elif quiet >= BEAT_S:
                yield ": still here\n\n"
                quiet = 0.0
            await asyncio.sleep(POLL_S)
            quiet += POLL_S

    async def _lists(self) -> AsyncIterator[str]:
        before, quiet = "", 0.0
        while not self._closing():
            lines = event("runs", {"runs": await run_in_threadpool(self._runs.summaries)})
            if lines != before:
                yield lines
                before, quiet = lines, 0.0
            elif quiet >= BEAT_S:
                yield ": still here\n\n"
                quiet = 0.0
            await asyncio.sleep(2 * POLL_S)
            quiet += 2 * POLL_S


def answer(value: Any) -> Response:
    """JSON in ASCII, so that a lone surrogate of a completion can be sent."""
    return Response(json.dumps(value, separators=(",", ":")), media_type="application/json")


def event(name: str, value: Any) -> str:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value, separators=(',', ':'))}\n\n"
