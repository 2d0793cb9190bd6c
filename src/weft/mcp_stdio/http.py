"""Where clients ask by HTTP: streamable HTTP at any path, and `GET /health`."""

from __future__ import annotations

from typing import Any, Final

from mcp.server.lowlevel import Server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.sdk.origin import from_elsewhere

MAX_REQUEST_BYTES: Final = 16 * 1024 * 1024
"""Of one request."""

MAX_IN_FLIGHT: Final = 512
"""Requests at a time, streams of changes included; more are refused, so that the mesh tries another."""

MAX_SESSIONS: Final = 1000
"""Of clients of the older generation."""


class HttpApp:
    """Serves one MCP server, as an ASGI application. `sessions.run()` must be entered meanwhile."""

    def __init__(self, server: Server[Any]) -> None:
        self.sessions = StreamableHTTPSessionManager(
            server, max_request_body_size=MAX_REQUEST_BYTES, max_sessions=MAX_SESSIONS
        )
        self._in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        app = self._refusal(scope) or self.sessions.handle_request
        self._in_flight += 1
        try:
            await app(scope, receive, send)
        finally:
            self._in_flight -= 1

    def _refusal(self, scope: Scope) -> ASGIApp | None:
        if scope["method"] == "GET" and scope["path"] == "/health":
            return Response(b"{}", media_type="application/json")
        if from_elsewhere(scope):
            return PlainTextResponse("pages of other origins may not call this server", 403)
        if self._in_flight >= MAX_IN_FLIGHT:
            busy = f"{MAX_IN_FLIGHT} requests are in flight already"
            return PlainTextResponse(busy, 429, {"x-weft-refused": "busy", "retry-after": "1"})
        return None
