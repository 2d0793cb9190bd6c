"""The MCP server behind `http://tools.mesh/mcp`, as ASGI: who it is for, its limits, and its streams.

The transport: https://modelcontextprotocol.io/specification/2025-11-25/basic/transports#streamable-http.
Clients of 2025 get a session's id, since they open the stream of changes only with one. Nothing is kept under
it: every replica takes every id.
"""

from __future__ import annotations

import asyncio
import json
import re
import secrets
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

from weft.controlplane.api.events import event, event_stream
from weft.controlplane.mcp.caller import Asker, asker
from weft.controlplane.mcp.listing import Listing, ListKind
from weft.controlplane.mcp.streams import Streams
from weft.controlplane.mcp.written import filling
from weft.errors import Unavailable
from weft.model.foreign_json import foreign_json
from weft.model.mcp_catalogue import McpCatalogue

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

MAX_BODY_BYTES: Final = 1024 * 1024
"""Of a request."""

START_TIMEOUT: Final = 60.0
"""Seconds that the first request waits for the SDK to be loaded."""

ANSWER_TIMEOUT: Final = 30.0
"""Seconds that the answer to any request but a stream may take."""

SESSION_HEADER: Final = "mcp-session-id"
VERSION_HEADER: Final = "mcp-protocol-version"

_ORIGIN = re.compile(
    r"https?://(tools\.mesh(\.localhost)?|localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?", re.IGNORECASE
)
_STREAM = "text/event-stream"
_WITH_SESSIONS = frozenset({"2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"})
_INVALID_REQUEST = -32600
_PARSE_ERROR = -32700


class VirtualServer:
    """Answers clients of MCP; `run` must run meanwhile."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        """What each caller sees."""
        self._streams = Streams()
        self._wanted = asyncio.Event()
        self._manager: asyncio.Future[StreamableHTTPSessionManager] | None = None

    async def run(self) -> None:
        """Serve, from the first request on, until cancelled."""
        await self._wanted.wait()
        # In a thread: calls of others do not wait for that second.
        manager = await asyncio.to_thread(_load, self.listing, self._streams)
        async with manager.run():
            self._running.set_result(manager)
            await self.listing.run()

    @property
    def open_streams(self) -> int:
        """Streams of changes that are open now."""
        return self._streams.open

    def end_streams(self) -> None:
        """End all streams of changes, which have no end of their own: the server stops."""
        self._streams.end()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request of who has passed the API's gate. Raises Unavailable, TooMany."""
        request = Request(scope, receive)
        origin = request.headers.get("origin")
        if origin is not None and not _ORIGIN.fullmatch(origin):
            await _refusal(403, "requests from web pages of other origins are not taken")(
                scope, receive, send
            )
        elif request.method == "POST":
            await self._post(request, send)
        elif request.headers.get(VERSION_HEADER, "2025-03-26") not in _WITH_SESSIONS:
            await Response(status_code=405, headers={"allow": "POST"})(scope, receive, send)
        elif request.method == "GET":
            await self._stream(request, send)
        else:
            # The end of a session, of which there is nothing to end.
            await Response(status_code=200)(scope, receive, send)

    async def _post(self, request: Request, send: Send) -> None:
        try:
            body = await _body(request)
            method = _method(body)
        except _Malformed as error:
            await _refusal(error.status, str(error), error.code)(request.scope, request.receive, send)
            return
        if method == "initialize":
            send = _with_session(send)
        receive = _replayed(body, request.receive)
        manager = await self._started()
        if method == "subscriptions/listen":
            await manager.handle_request(request.scope, receive, send)
            return
        async with asyncio.timeout(ANSWER_TIMEOUT):
            await manager.handle_request(request.scope, receive, filling(request.scope, send))

    async def _stream(self, request: Request, send: Send) -> None:
        """The stream by which a client of 2025 hears of changes."""
        if _STREAM not in request.headers.get("accept", ""):
            await _refusal(406, f"accept {_STREAM}")(request.scope, request.receive, send)
            return
        await self._started()
        who = asker(request.scope)
        with self._streams.place(who.name):
            told = event_stream(self._told(who, self.listing.of(who.id)), who.admitted)
            await told(request.scope, request.receive, send)

    async def _told(self, who: Asker, before: McpCatalogue) -> AsyncGenerator[bytes]:
        async with aclosing(self._streams.until_end(self.listing.changes(who.id, before))) as changes:
            async for changed in changes:
                for kind in ListKind:
                    if kind in changed:
                        note = {"jsonrpc": "2.0", "method": f"notifications/{kind}/list_changed"}
                        yield event("message", json.dumps(note))

    @property
    def _running(self) -> asyncio.Future[StreamableHTTPSessionManager]:
        if self._manager is None:
            self._manager = asyncio.get_running_loop().create_future()
        return self._manager

    async def _started(self) -> StreamableHTTPSessionManager:
        self._wanted.set()
        try:
            async with asyncio.timeout(START_TIMEOUT):
                return await asyncio.shield(self._running)
        except TimeoutError as error:
            raise Unavailable(
                "the MCP server of this control plane has not started yet; try again"
            ) from error


def _load(listing: Listing, streams: Streams) -> StreamableHTTPSessionManager:
    from weft.controlplane.mcp.server import session_manager  # noqa: PLC0415 - it takes a second

    return session_manager(listing, streams)


class _Malformed(ValueError):
    """A body that is no request or notification of JSON-RPC."""

    def __init__(self, code: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


async def _body(request: Request) -> bytes:
    """The body, which has as long to come as that of any request. Raises _Malformed if it is too large."""
    parts, room = [], MAX_BODY_BYTES
    async for part in request.stream():
        room -= len(part)
        if room < 0:
            raise _Malformed(_INVALID_REQUEST, f"a request has at most {MAX_BODY_BYTES} bytes", 413)
        parts.append(part)
    return b"".join(parts)


def _method(body: bytes) -> str:
    """The method that a body asks for. Raises _Malformed.

    The SDK would tell clients of 2025 in the words of its own library.
    """
    try:
        message = foreign_json(body, limit=MAX_BODY_BYTES)
    except ValueError as error:
        raise _Malformed(_PARSE_ERROR, "Parse error") from error
    match message:
        case {"jsonrpc": "2.0", "method": str(method), **others}:
            identity = others.get("id", 0)
            if isinstance(identity, str | int) and not isinstance(identity, bool):
                return method
    raise _Malformed(_INVALID_REQUEST, "the body is not one request or notification of JSON-RPC 2.0")


def _with_session(send: Send) -> Send:
    """`send`, with the id of a session in what succeeds."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)[SESSION_HEADER] = secrets.token_urlsafe(24)
        await send(message)

    return sending


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` from the beginning, of which `body` was read."""
    first: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def receiving() -> Message:
        nonlocal first
        if first is not None:
            message, first = first, None
            return message
        return await receive()

    return receiving


def _refusal(status: int, message: str, code: int = _INVALID_REQUEST) -> Response:
    error: dict[str, Any] = {"code": code, "message": message}
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, status)
