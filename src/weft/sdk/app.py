"""One running instance of an agent, as an ASGI application: `POST /rpc` and `GET /health`."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.errors import Interrupted, InvalidRequest, MeshError, NotFound
from weft.model.mcp_wire import MCP_PATH
from weft.sdk.a2a.card import CardSource
from weft.sdk.a2a.door import A2A_PATHS, A2aAgent, A2aDoor
from weft.sdk.admission import Admission
from weft.sdk.context import Context, handling, read_context
from weft.sdk.conversation import NOTHING_SAID, Conversation
from weft.sdk.deduplication import AnswerCache
from weft.sdk.disconnect import ClientGone, while_connected
from weft.sdk.event_stream import EventStream
from weft.sdk.failure import failures_answered
from weft.sdk.handler import Handler
from weft.sdk.health import HealthCheck, failing_checks
from weft.sdk.mcp.door import McpAgent, McpDoor
from weft.sdk.mesh import Mesh
from weft.sdk.problem import Problem, Rejection
from weft.sdk.propagation import look_after_clients
from weft.sdk.request import check_accept, problem_response, read_body, read_kind
from weft.sdk.settings import AgentSettings
from weft.sdk.spans import HandlerSpans, Invocation
from weft.sdk.threads import Threads
from weft.sdk.wire import CALLER_HEADER, HEALTH_PATH, JSON, RPC_PATH
from weft.sdk.work import EventFunction, TaskFunction
from weft.work.duties import Work
from weft.work.metrics import CONTENT_TYPE, METRICS_PATH, metrics_page

T = TypeVar("T")

logger = logging.getLogger("weft.agent")

Spanned = Callable[[Context, Mapping[str, Any]], AbstractContextManager[Invocation]]
"""Begins the span of a handler that is called, with its arguments."""

NOTHING: Mapping[type, Any] = MappingProxyType({})


class AgentApp:
    """Answers requests by the handlers of an agent; holds what one running instance needs for it.

    It is what `Agent.asgi` serves, and what the in-memory mesh runs several of.
    """

    def __init__(
        self,
        settings: AgentSettings,
        handlers: Mapping[str, Handler],
        checks: Sequence[HealthCheck],
        mesh: Mesh,
        *,
        tasks: Sequence[TaskFunction] = (),
        events: Sequence[EventFunction] = (),
        default: str | None = None,
        a2a: bool = True,
    ) -> None:
        """`mesh` is passed to handlers that ask for one, and closed with this app.

        `default` is the kind of the handler that A2A's messages are for if they name none; without `a2a` it
        does not speak that.

        Work on `tasks` and `events` begins with `start`, or the lifespan.
        """
        self.settings = settings
        self.admission = Admission(settings.concurrency)
        self._handlers = handlers
        self._checks = checks
        self._mesh = mesh
        self._answers = AnswerCache()
        self._calls: set[asyncio.Task[Any]] = set()
        mesh.tracer.name(settings.type, settings.version)
        self._spans = HandlerSpans(mesh.tracer, settings.type)
        self.work = Work(
            [each.duty(self._call, self._spans) for each in tasks],
            [each.duty(self._call, self._spans) for each in events],
            mesh.membership,
        )
        self._threads = Threads(settings.type)
        agent = A2aAgent(CardSource(settings, handlers, mcp_path=MCP_PATH), mesh, default)
        self.a2a = A2aDoor(agent, self._call_for_a2a, self._stream_for_a2a, self._spans) if a2a else None
        self.mcp = McpDoor(
            McpAgent(settings, handlers, self.admission, self._answer_tool, self._items, self._spans)
        )
        self._app = Starlette(
            routes=[
                Route(RPC_PATH, _Endpoint(self._rpc), methods=["POST"]),
                Route(HEALTH_PATH, self._health, methods=["GET"]),
                Route(METRICS_PATH, self._metrics, methods=["GET"]),
                Route(MCP_PATH, _Endpoint(self.mcp)),
                *(Route(path, _Endpoint(self.a2a)) for path in A2A_PATHS if self.a2a is not None),
            ],
            exception_handlers={HTTPException: _no_such_path},
            lifespan=self._lifespan,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._look_after_clients()
        await self._app(scope, receive, send)

    def _look_after_clients(self) -> None:
        """Again and again: who knows what was imported since."""
        if self.settings.propagate:
            look_after_clients()

    def start(self) -> None:
        """Begin to work on tasks and to take events; needs a running event loop."""
        self.work.start()
        if self.a2a is not None:
            self.a2a.start()

    def drain(self) -> None:
        """Take no new requests, tasks and events; those in flight go on."""
        self.admission.draining = True
        self.work.drain()
        if self.a2a is not None:
            self.a2a.drain()

    async def drained(self, timeout: float) -> None:
        """Wait until nothing is in flight; after `timeout` seconds break off what still is.

        Tasks and events that are broken off are handed back, for others.
        """
        messages = () if self.a2a is None else (self.a2a.drained(timeout),)
        await asyncio.gather(self._requests_drained(timeout), self.work.drained(timeout), *messages)

    async def _requests_drained(self, timeout: float) -> None:
        try:
            async with asyncio.timeout(timeout):
                await self.admission.idle()
        except TimeoutError:
            logger.warning("%d requests are broken off, not done after %g s", len(self._calls), timeout)
            self.break_off()

    def break_off(self) -> None:
        """Cancel every request in flight; its caller is told that it was interrupted."""
        for call in self._calls:
            call.cancel()
        self.mcp.break_off()
        if self.a2a is not None:
            self.a2a.break_off()

    async def aclose(self) -> None:
        """Let go of the mesh client and the threads. Blocking handlers still at work are not waited for."""
        await self.work.aclose()
        await self.mcp.aclose()
        if self.a2a is not None:
            await self.a2a.aclose()
        self._threads.shutdown()
        await self._mesh.aclose()

    @asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        try:
            self.start()
            yield
        finally:
            await self.aclose()

    async def _rpc(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive, send)
        try:
            # Before the body is read, so that what is refused certainly was not processed.
            with self.admission.slot():
                await self._handle(request, send)
        except (ClientGone, ClientDisconnect):
            logger.debug("a caller went away before its answer was ready")
        except Rejection as rejection:
            await problem_response(rejection.problem)(scope, receive, send)
        except MeshError as error:
            await problem_response(Problem.of(error))(scope, receive, send)

    async def _handle(self, request: Request, send: Send) -> None:
        body = await read_body(request, self.settings.max_body_bytes)
        handler = self._handler_of(body)
        check_accept(request, handler)
        arguments = handler.read(body)
        context = read_context(handler.kind, dict(request.headers))
        if handler.streams:
            await self._answer_stream(request, send, handler, context, arguments)
        else:
            answer = await self._run(request, self._answer(handler, context, arguments, body))
            await Response(answer, media_type=JSON)(request.scope, request.receive, send)

    def _handler_of(self, body: bytes) -> Handler:
        kind = read_kind(body)
        if kind in self._handlers:
            return self._handlers[kind]
        known = sorted(self._handlers)
        detail = f"agent {self.settings.type!r} knows no request kind {kind!r}, only: {', '.join(known)}"
        raise Rejection(Problem(404, NotFound, detail, {"kinds": known}))

    async def _run(self, request: Request, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work, name="call")
        self._calls.add(task)
        try:
            return await while_connected(request.receive, task)
        finally:
            self._calls.discard(task)

    async def _answer_tool(
        self, handler: Handler, context: Context, arguments: Mapping[str, Any], body: bytes
    ) -> bytes:
        return await self._answer(handler, context, arguments, body, self._spans.tool_called)

    async def _answer(
        self,
        handler: Handler,
        context: Context,
        arguments: Mapping[str, Any],
        body: bytes,
        spanned: Spanned | None = None,
    ) -> bytes:
        compute = partial(self._compute, handler, context, arguments, spanned or self._spans.invoked)
        key = context.idempotency_key
        if key is None:
            return await compute()
        return await self._answers.answer(key, hashlib.sha256(body).digest(), compute)

    async def _compute(
        self, handler: Handler, context: Context, arguments: Mapping[str, Any], spanned: Spanned
    ) -> bytes:
        with (
            handling(context),
            failures_answered(handler.kind),
            spanned(context, arguments) as invocation,
        ):
            result = await self._call(handler, arguments, NOTHING, self.settings.concurrency)
            invocation.answered(result)
            return to_json({"result": result}, by_alias=True)

    async def _call(
        self, handler: Handler, arguments: Mapping[str, Any], at_hand: Mapping[type, Any], concurrency: int
    ) -> Any:
        # Requests together, and each queue and each topic by itself.
        purpose = " ".join([*(each.__name__ for each in at_hand), handler.kind]) if at_hand else "requests"
        at_hand = {Conversation: NOTHING_SAID, **at_hand, Mesh: self._mesh}
        self._look_after_clients()
        if not handler.blocking:
            return await handler.call(arguments, at_hand)
        return await self._threads.run(purpose, concurrency, partial(handler.call, arguments, at_hand))

    async def _call_for_a2a(
        self, handler: Handler, arguments: Mapping[str, Any], at_hand: Mapping[type, Any]
    ) -> Any:
        return await self._call(handler, arguments, at_hand, self.settings.concurrency)

    def _stream_for_a2a(
        self, handler: Handler, arguments: Mapping[str, Any], at_hand: Mapping[type, Any]
    ) -> AsyncGenerator[Any, None]:
        items: AsyncGenerator[Any, None] = handler.call(arguments, {**at_hand, Mesh: self._mesh})
        return items

    def _items(self, handler: Handler, arguments: Mapping[str, Any]) -> AsyncGenerator[Any, None]:
        at_hand = {Mesh: self._mesh, Conversation: NOTHING_SAID}
        items: AsyncGenerator[Any, None] = handler.call(arguments, at_hand)
        return items

    async def _answer_stream(
        self, request: Request, send: Send, handler: Handler, context: Context, arguments: Mapping[str, Any]
    ) -> None:
        stream = EventStream(send)
        try:
            await self._run(request, self._stream(stream, handler, context, arguments))
        except Interrupted as error:
            await stream.fail(Problem.of(error))

    async def _stream(
        self, stream: EventStream, handler: Handler, context: Context, arguments: Mapping[str, Any]
    ) -> None:
        with handling(context), self._spans.invoked(context, arguments) as invocation:
            items = self._items(handler, arguments)
            if invocation.span is not None:
                items = invocation.watched(items, self._mesh.tracer)
            await stream.serve(handler.kind, items)

    async def _health(self, _request: Request) -> Response:
        reason = await failing_checks(self._checks)
        status = "draining" if self.admission.draining else "unhealthy" if reason else "healthy"
        report = {
            "status": status,
            "reason": reason,
            "type": self.settings.type,
            "version": self.settings.version,
            "capabilities": sorted(self.settings.capabilities),
            "in_flight": self.admission.in_flight,
        }
        return Response(to_json(report), 200 if status == "healthy" else 503, media_type=JSON)

    async def _metrics(self, request: Request) -> Response:
        """For this machine only: what comes through the mesh has a caller."""
        if CALLER_HEADER in request.headers:
            return await _no_such_path(request, HTTPException(404))
        return Response(metrics_page(self._mesh.metrics), headers={"content-type": CONTENT_TYPE})


class _Endpoint:
    """Keeps Starlette from wrapping an ASGI function: it wraps functions and methods, not objects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send)


async def _no_such_path(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    detail = (
        f"there is no {request.method} {request.url.path} here, only POST {RPC_PATH} and GET {HEALTH_PATH}"
    )
    return problem_response(Problem(status, InvalidRequest, detail))
