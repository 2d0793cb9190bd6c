"""`tools.mesh` in memory: the handlers of all agents."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from weft.errors import MeshError
from weft.model.foreign_json import foreign_object
from weft.model.mcp_wire import META_PREFIX, NAME_HEADER, TOOLS_CALL
from weft.model.names import MESH_DOMAIN
from weft.model.offer import McpGeneration
from weft.sdk.mcp.listing import DISCOVER, LIST
from weft.sdk.replay import replayed
from weft.sdk.tools import header_value
from weft.sdk.wire import MAX_REQUEST_BYTES
from weft.testing.members import Members

Deliver = Callable[[str, Scope, Receive, Send], Awaitable[None]]
"""Brings a request to an agent of a type. Raises MeshError before there is an answer."""

PARSE_ERROR, METHOD_NOT_FOUND, INVALID_PARAMS, INTERNAL_ERROR = -32700, -32601, -32602, -32603

_VERSION: Final = McpGeneration.STATELESS.value
_CACHING: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


@dataclass(frozen=True, slots=True)
class _Tool:
    type: str
    kind: str
    definition: Mapping[str, Any]


class Tools:
    """An ASGI application: lists and calls, by MCP 2026-07-28."""

    def __init__(self, members: Members, deliver: Deliver) -> None:
        self._members = members
        self._deliver = deliver

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            message = foreign_object(await request.body(), limit=MAX_REQUEST_BYTES)
        except ValueError as error:
            await _error(None, PARSE_ERROR, str(error))(scope, receive, send)
            return
        method, params = message.get("method"), message.get("params")
        if method == TOOLS_CALL and isinstance(params, dict):
            await self._call(request, send, message, params)
            return
        info = {"_meta": {f"{META_PREFIX}serverInfo": {"name": "weft", "version": "1"}}}
        if method == DISCOVER:
            told: dict[str, Any] = {"supportedVersions": [_VERSION], "capabilities": {"tools": {}}}
        elif method == LIST:
            told = {"tools": [{**each.definition, "name": name} for name, each in self._listed().items()]}
        else:
            await _error(message.get("id"), METHOD_NOT_FOUND, "Method not found")(scope, receive, send)
            return
        answer = {"jsonrpc": "2.0", "id": message.get("id"), "result": {**told, **_CACHING, **info}}
        await JSONResponse(answer)(scope, receive, send)

    async def _call(
        self, request: Request, send: Send, message: Mapping[str, Any], params: Mapping[str, Any]
    ) -> None:
        name = params.get("name")
        tool = self._callable().get(name) if isinstance(name, str) else None
        if tool is None:
            answer = _error(message.get("id"), INVALID_PARAMS, f"Unknown tool: {name}")
            await answer(request.scope, request.receive, send)
            return
        body = json.dumps({**message, "params": {**params, "name": tool.kind}}).encode()
        scope = {**request.scope, "headers": list(request.scope["headers"])}
        headers = MutableHeaders(scope=scope)
        headers["host"] = f"{tool.type}.{MESH_DOMAIN}"
        headers[NAME_HEADER] = header_value(tool.kind)
        headers["content-length"] = str(len(body))
        try:
            await self._deliver(tool.type, scope, replayed(body, request.receive), send)
        except MeshError as error:
            answer = _error(message.get("id"), INTERNAL_ERROR, error.detail, {"code": error.code})
            await answer(request.scope, request.receive, send)

    def _tools(self) -> list[_Tool]:
        """Those of all types that are there, by type."""
        apps = {each.instance.type: each.app for each in self._members.living()}
        return [
            _Tool(type_, each["name"], each)
            for type_, app in apps.items()
            for each in app.mcp.agent.listing.tools
        ]

    def _listed(self) -> dict[str, _Tool]:
        """As programs see them: by their own names, but where several are of one name."""
        tools = self._tools()
        times = Counter(each.kind for each in tools)
        return {each.kind if times[each.kind] == 1 else _full_name(each): each for each in tools}

    def _callable(self) -> dict[str, _Tool]:
        return {**{_full_name(each): each for each in self._tools()}, **self._listed()}


def _full_name(tool: _Tool) -> str:
    return f"{tool.type}_{tool.kind}"


def _error(identity: Any, code: int, message: str, data: Any = None) -> Response:
    error = {"code": code, "message": message} | ({} if data is None else {"data": data})
    status = {METHOD_NOT_FOUND: 404, INTERNAL_ERROR: 200}.get(code, 400)
    return JSONResponse({"jsonrpc": "2.0", "id": identity, "error": error}, status)
