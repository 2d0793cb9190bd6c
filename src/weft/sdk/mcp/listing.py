"""What an agent says of its tools to whoever only looks, as every sidecar does: without the library of MCP.

Answered are requests of 2026-07-28 in which all is as it should be; the others are left to the server.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from starlette.datastructures import Headers

from weft.model.foreign_json import foreign_object
from weft.model.mcp_wire import META_PREFIX, METHOD_HEADER, VERSION_HEADER
from weft.model.offer import McpGeneration
from weft.sdk.handler import Handler
from weft.sdk.mcp.tools import tools_of
from weft.sdk.settings import AgentSettings

LIST_TTL_MS: Final = 60_000
"""Milliseconds for which clients may remember the list of tools, which never changes while the agent runs."""

MAX_LOOK_BYTES: Final = 64 * 1024
"""Of a request that only looks."""

DISCOVER: Final = "server/discover"
LIST: Final = "tools/list"
LISTEN: Final = "subscriptions/listen"

_VERSION = McpGeneration.STATELESS.value
_METHOD_NOT_FOUND = -32601


class Listing:
    """The tools of an agent, and answers about them."""

    def __init__(self, settings: AgentSettings, handlers: Mapping[str, Handler]) -> None:
        self._settings = settings
        self._handlers = handlers

    @cached_property
    def tools(self) -> list[dict[str, Any]]:
        """As clients read of them."""
        return tools_of(self._handlers)

    def answer(self, method: str, body: bytes) -> tuple[int, dict[str, Any]] | None:
        """Status and message for a request that `is_look` was true of; None: it needs a closer look."""
        try:
            request = foreign_object(body, limit=MAX_LOOK_BYTES)
        except ValueError:
            return None
        identity = request.get("id")
        if (
            not isinstance(identity, str | int)
            or isinstance(identity, bool)
            or not _in_order(request, method)
        ):
            return None
        message = {"jsonrpc": "2.0", "id": identity}
        if method == LISTEN:
            error = {"code": _METHOD_NOT_FOUND, "message": "Method not found", "data": method}
            return 404, {**message, "error": error}
        told = self._discovered() if method == DISCOVER else {"tools": self.tools}
        info = {"name": self._settings.type, "version": self._settings.version}
        result = {
            **told,
            "resultType": "complete",
            "ttlMs": LIST_TTL_MS,
            "cacheScope": "private",
            "_meta": {f"{META_PREFIX}serverInfo": info},
        }
        return 200, {**message, "result": result}

    def _discovered(self) -> dict[str, Any]:
        return {"supportedVersions": [_VERSION], "capabilities": {"tools": {"listChanged": False}}}


def is_look(headers: Headers) -> bool:
    """Whether a POST with these headers may be such a request."""
    length = headers.get("content-length", "")
    methods = headers.getlist(METHOD_HEADER)
    return (
        headers.getlist(VERSION_HEADER) == [_VERSION]
        and len(methods) == 1
        and methods[0] in {DISCOVER, LIST, LISTEN}
        and length.isdecimal()
        and int(length[:10]) <= MAX_LOOK_BYTES
    )


def _in_order(request: Mapping[str, Any], method: str) -> bool:
    params = request.get("params")
    meta = params.get("_meta") if isinstance(params, dict) else None
    return (
        request.get("jsonrpc") == "2.0"
        and request.get("method") == method
        and isinstance(meta, dict)
        and meta.get(f"{META_PREFIX}protocolVersion") == _VERSION
        and isinstance(meta.get(f"{META_PREFIX}clientCapabilities"), dict)
        and isinstance(params, dict)
        and params.get("cursor") is None
    )
