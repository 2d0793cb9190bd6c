"""Requests by HTTP, forwarded to the server on the other side of the pipes as they are."""

from __future__ import annotations

import json
import logging
from typing import Any

import mcp_types as types
from mcp.client.session import ClientSession
from mcp.server.caching import CacheHint
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError
from pydantic import BaseModel, TypeAdapter, ValidationError

logger = logging.getLogger(__name__)

Context = ServerRequestContext[Any, Any]

_METHODS: dict[str, tuple[tuple[str, type[types.RequestParams]], ...]] = {
    "tools": (("tools/list", types.PaginatedRequestParams), ("tools/call", types.CallToolRequestParams)),
    "resources": (
        ("resources/list", types.PaginatedRequestParams),
        ("resources/templates/list", types.PaginatedRequestParams),
        ("resources/read", types.ReadResourceRequestParams),
    ),
    "prompts": (
        ("prompts/list", types.PaginatedRequestParams),
        ("prompts/get", types.GetPromptRequestParams),
    ),
    "completions": (("completion/complete", types.CompleteRequestParams),),
}
"""What is forwarded, by the capability that the server has to have."""

_UNCACHED = CacheHint(ttl_ms=0, scope="private")
_HINTS: dict[Any, CacheHint] = {
    method: _UNCACHED
    for methods in _METHODS.values()
    for method, _ in methods
    if method.endswith("/list") or method == "resources/read"
}
"""Servers of the older generation say nothing of that, clients of the newer insist on it."""

_AS_IT_IS: TypeAdapter[Any] = TypeAdapter(dict[str, Any])
_CHANGES = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)


class _Request(types.Request[dict[str, Any], str]):
    """Any request."""

    method: str
    params: dict[str, Any]


class ForwardingServer(Server[Any]):
    """Has for clients what another server has. It is of both generations, whichever that is of."""

    def __init__(self, session: ClientSession, listening: ListenHandler) -> None:
        """`session` is with the other server, and settled; `listening` tells of changes of its lists."""
        info = session.server_info or types.Implementation(name="stdio", version="")
        super().__init__(
            info.name,
            version=info.version,
            title=info.title,
            description=info.description,
            instructions=session.instructions,
            website_url=info.website_url,
            icons=info.icons,
            on_subscriptions_listen=listening,
            cache_hints=_HINTS,
            # The server checks its own arguments: no list need be asked for before every call.
            get_tool_input_schema=lambda _: None,
        )
        self._session = session
        capabilities = session.server_capabilities
        for capability, methods in _METHODS.items():
            if getattr(capabilities, capability, None) is not None:
                for method, params in methods:
                    self.add_request_handler(method, params, self._forward)

    def create_initialization_options(self, *_: Any, **__: Any) -> InitializationOptions:
        """What it says of itself to clients that ask for a session: that its lists may change, too."""
        return super().create_initialization_options(_CHANGES)

    async def _forward(self, context: Context, _: BaseModel) -> dict[str, Any]:
        params = dict(context.params or {})
        try:
            json.dumps(params, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise MCPError(types.INVALID_PARAMS, "a text has half a surrogate pair") from None
        request = _Request(method=context.method, params=params)
        wants_progress = context.meta is not None and context.meta.get("progress_token") is not None
        try:
            result: dict[str, Any] = await self._session.send_request(
                request,
                _AS_IT_IS,
                progress_callback=context.session.report_progress if wants_progress else None,
            )
        except ValidationError as error:
            logger.warning("the server's result of %s is not what MCP says: %s", context.method, error)
            raise MCPError(types.INTERNAL_ERROR, "The server's result is not what MCP says") from error
        return {"resultType": "complete", **result}
