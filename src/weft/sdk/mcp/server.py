"""The MCP server of one running agent: no sessions, both generations of the protocol."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, TypeVar

import mcp_types as types
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from pydantic_core import PydanticSerializationError, from_json, to_json, to_jsonable_python
from starlette.types import Receive, Scope, Send

from weft.errors import InvalidRequest
from weft.sdk.context import Context, handling, read_context
from weft.sdk.failure import failures_answered
from weft.sdk.handler import Handler
from weft.sdk.mcp.door import ADMITTED, McpAgent
from weft.sdk.mcp.listing import LIST_TTL_MS
from weft.sdk.mcp.results import MAX_ITEMS_BYTES, failure, result_of, result_of_items
from weft.sdk.problem import Rejection
from weft.sdk.trace import trace_of
from weft.sdk.wire import BAGGAGE_HEADER, TRACE_HEADER

T = TypeVar("T")

CallContext = ServerRequestContext[Any, Any]

_TRACE_FIELDS = (TRACE_HEADER, "tracestate", BAGGAGE_HEADER)
"""Clients that know of traces put them into `_meta`; by HTTP they may come as headers, too. Envoy begins a
trace of its own, in headers, for a call with none there: the client's is the one that the call belongs to."""


class McpServer:
    """Serves an agent's tools, as an ASGI application. `run` it meanwhile."""

    def __init__(self, agent: McpAgent) -> None:
        self._agent = agent
        self._tools = [types.Tool.model_validate(each) for each in agent.listing.tools]
        server: Server[Any] = Server(
            agent.settings.type,
            version=agent.settings.version,
            on_list_tools=self._list,
            on_call_tool=self._call,
            cache_hints={"tools/list": CacheHint(ttl_ms=LIST_TTL_MS, scope="private")},
            get_tool_input_schema=lambda _: None,  # no argument goes into a header
        )
        self._sessions = StreamableHTTPSessionManager(
            server, stateless=True, max_request_body_size=agent.settings.max_body_bytes
        )
        self._calls: set[asyncio.Task[Any]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._sessions.handle_request(scope, receive, send)

    async def run(self, started: asyncio.Event) -> None:
        """Serve until cancelled; sets `started` when it does."""
        async with self._sessions.run():
            started.set()
            await asyncio.Event().wait()  # which nobody sets

    def break_off(self) -> None:
        """Cancel every call in flight."""
        for call in self._calls:
            call.cancel()

    async def _list(self, _: CallContext, __: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        return types.ListToolsResult(tools=self._tools)

    async def _call(self, call: CallContext, params: types.CallToolRequestParams) -> types.CallToolResult:
        handler = self._agent.handlers.get(params.name)
        if handler is None:
            raise MCPError(types.INVALID_PARAMS, f"Unknown tool: {params.name[:128]}")
        context = _context(handler.kind, call)
        arguments = _written(params.arguments or {})
        try:
            with self._place(call):
                return await self._run(self._answer(call, handler, context, arguments))
        except Rejection as rejection:
            if rejection.problem.refused:
                raise MCPError(types.INTERNAL_ERROR, rejection.problem.detail) from rejection
            return failure(rejection.problem.detail)

    def _place(self, call: CallContext) -> AbstractContextManager[None]:
        """A place among the agent's calls, unless the request has one. Raises Rejection."""
        has_one = call.request is not None and call.request.scope.get(ADMITTED, False)
        return nullcontext() if has_one else self._agent.admission.slot()

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work, name="tool call")
        self._calls.add(task)
        task.add_done_callback(_heard)
        try:
            await asyncio.wait((task,))
            if task.cancelled():
                raise MCPError(
                    types.INTERNAL_ERROR,
                    "the agent stopped before the call was done: it may or may not have been processed",
                )
            return task.result()
        finally:
            self._calls.discard(task)
            task.cancel()

    async def _answer(
        self, call: CallContext, handler: Handler, context: Context, written: bytes
    ) -> types.CallToolResult:
        arguments = handler.read_payload(written)
        if handler.streams:
            return await self._collect(call, handler, context, arguments)
        # Apart from calls by other ways under the same Idempotency-Key, whose answers look otherwise.
        repeated = b"mcp " + handler.kind.encode() + written
        answer = await self._agent.answer(handler, context, arguments, repeated)
        return result_of(from_json(answer)["result"])

    async def _collect(
        self, call: CallContext, handler: Handler, context: Context, arguments: Mapping[str, Any]
    ) -> types.CallToolResult:
        """All items of a stream; who asked for that hears of each as it comes, as progress."""
        items: list[Any] = []
        size = 0
        with (
            handling(context),
            failures_answered(handler.kind),
            self._agent.spans.tool_called(context, arguments) as invocation,
        ):
            async with aclosing(self._agent.items(handler, arguments)) as stream:
                async for item in stream:
                    items.append(to_jsonable_python(item, by_alias=True))
                    written = to_json(items[-1])
                    size += len(written)
                    if size > MAX_ITEMS_BYTES:
                        return failure(f"{handler.kind!r} streams more than {MAX_ITEMS_BYTES} bytes")
                    text = items[-1] if isinstance(items[-1], str) else written.decode()
                    await call.session.report_progress(len(items), message=text)
            invocation.answered(items)
        return result_of_items(items)


def _heard(call: asyncio.Task[Any]) -> None:
    """What a call failed with that nobody waits for any more need not be logged."""
    if not call.cancelled():
        call.exception()


def _context(kind: str, call: CallContext) -> Context:
    """What a call brought. Raises MCPError for headers that make no sense."""
    headers = dict(call.request.headers) if call.request is not None else {}
    meta = call.meta or {}
    told = {name: value for name in _TRACE_FIELDS if isinstance(value := meta.get(name), str)}
    another = trace_of(told.get(TRACE_HEADER)) not in {None, trace_of(headers.get(TRACE_HEADER))}
    headers = {**headers, **told} if another else {**told, **headers}
    try:
        return read_context(kind, headers)
    except InvalidRequest as error:
        raise MCPError(types.INVALID_PARAMS, error.detail) from error


def _written(arguments: Mapping[str, Any]) -> bytes:
    try:
        return to_json(arguments)
    except (PydanticSerializationError, ValueError) as error:
        raise MCPError(types.INVALID_PARAMS, "the arguments hold half a surrogate pair") from error
