"""An agent's way into MCP: who is let in, and the server, loaded when it is needed.

Nothing that this module imports at its top needs the library of MCP, which costs memory and most of a second.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic_core import to_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.aio.tasks import TaskOwner
from weft.errors import Denied
from weft.model.mcp_wire import METHOD_HEADER, TOOLS_CALL
from weft.sdk.admission import Admission
from weft.sdk.context import Context
from weft.sdk.handler import Handler
from weft.sdk.mcp.listing import MAX_LOOK_BYTES, Listing, is_look
from weft.sdk.origin import from_elsewhere
from weft.sdk.problem import Problem, Rejection
from weft.sdk.replay import replayed
from weft.sdk.request import problem_response, read_body
from weft.sdk.settings import AgentSettings
from weft.sdk.spans import HandlerSpans
from weft.sdk.wire import JSON

MAX_IN_FLIGHT: Final = 1000
"""Requests by MCP at once, lists included. Only calls count towards the agent's `concurrency`."""

ADMITTED: Final = "weft.admitted"
"""In the scope of a request that has its place among the agent's calls."""

Answer = Callable[[Handler, Context, Mapping[str, Any], bytes], Awaitable[bytes]]
"""Calls a handler, or remembers what came of it: `{"result": ...}`. Raises Rejection. The last is the
request, by which repetitions are known."""

Items = Callable[[Handler, Mapping[str, Any]], AsyncGenerator[Any, None]]
"""Calls a handler that streams."""


@dataclass(frozen=True)
class McpAgent:
    """What the server needs of an agent."""

    settings: AgentSettings
    handlers: Mapping[str, Handler]
    """By kind, which is the tool's name."""
    admission: Admission
    """Of its calls, whichever way they come."""
    answer: Answer
    items: Items
    spans: HandlerSpans

    @cached_property
    def listing(self) -> Listing:
        """Its tools."""
        return Listing(self.settings, self.handlers)


class McpDoor:
    """An ASGI application for `/mcp`. Close it in the end."""

    def __init__(self, agent: McpAgent) -> None:
        self.agent = agent
        self._admission = Admission(MAX_IN_FLIGHT)
        self._server: Any = None
        self._one_starts = asyncio.Lock()
        self._tasks = TaskOwner("MCP")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            _check_origin(scope)
            with self._admission.slot():
                request = Request(scope, receive)
                if request.method == "POST" and is_look(request.headers):
                    await self._show(request, send)
                else:
                    await self._serve(scope, receive, send)
        except ClientDisconnect:
            pass  # nobody waits for the answer
        except Rejection as rejection:
            await problem_response(rejection.problem)(scope, receive, send)

    def break_off(self) -> None:
        """Cancel every call in flight; its caller is told that it was interrupted."""
        if self._server is not None:
            self._server.break_off()

    async def aclose(self) -> None:
        """Stop."""
        await self._tasks.close()

    async def _show(self, request: Request, send: Send) -> None:
        """Answer who only looks, if need be by way of the server."""
        body = await read_body(request, MAX_LOOK_BYTES)
        told = self.agent.listing.answer(request.headers[METHOD_HEADER], body)
        if told is None:
            await self._serve(request.scope, replayed(body, request.receive), send)
        else:
            status, message = told
            await Response(to_json(message), status, media_type=JSON)(request.scope, request.receive, send)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        server = await self._started()
        # Before the body is read, so that what is refused certainly was not processed.
        with self.agent.admission.slot() if _is_call(scope) else nullcontext():
            await server(scope, receive, send)

    async def _started(self) -> ASGIApp:
        async with self._one_starts:
            if self._server is None:
                # In a thread: what else the agent does at the moment goes on.
                module: Any = await asyncio.to_thread(importlib.import_module, "weft.sdk.mcp.server")
                server = module.McpServer(self.agent)
                started = asyncio.Event()
                self._tasks.start(server.run(started), name="server", endless=True)
                await started.wait()
                self._server = server
        app: ASGIApp = self._server
        return app


def _check_origin(scope: Scope) -> None:
    if from_elsewhere(scope):
        raise Rejection(Problem(403, Denied, "pages of other origins may not call this agent"))


def _is_call(scope: Scope) -> bool:
    """Whether a request says in its head that it calls a tool; notes that."""
    method = Request(scope).headers.get(METHOD_HEADER)
    scope[ADMITTED] = scope["method"] == "POST" and method == TOOLS_CALL
    admitted: bool = scope[ADMITTED]
    return admitted
