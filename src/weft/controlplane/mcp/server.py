"""The lists of `tools.mesh` as a server of the official SDK has them, for both generations of MCP.

Imported when the first client comes: the SDK takes a second, and thirty megabytes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import aclosing
from importlib.metadata import version
from typing import Any, Final, TypeAlias

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import NotificationOptions, Server
from mcp.server.models import InitializationOptions
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.subscriptions import (
    InMemorySubscriptionBus,
    ListenHandler,
    PromptsListChanged,
    ResourcesListChanged,
    ServerEvent,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CompleteRequestParams,
    GetPromptRequestParams,
    ListPromptsResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    Prompt,
    ReadResourceRequestParams,
    Resource,
    ResourceTemplate,
    SubscriptionsListenRequestParams,
    SubscriptionsListenResult,
    Tool,
)
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from starlette.requests import Request
from starlette.types import Scope

from weft.controlplane.mcp.caller import Asker, asker
from weft.controlplane.mcp.listing import Listing, ListKind
from weft.controlplane.mcp.pages import Page, page_of
from weft.controlplane.mcp.streams import Streams
from weft.controlplane.mcp.written import Writer, fill
from weft.errors import InvalidRequest, TooMany
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.offer import JsonObject

TTL: Final = 10_000
"""Milliseconds for which clients that cannot hear of changes may keep a list; the others are told."""

INSTRUCTIONS: Final = "The tools, prompts and resources of all MCP servers of this mesh that you may use."

_Context: TypeAlias = ServerRequestContext[Any, Any]
_EVENTS: Final[Mapping[ListKind, Callable[[], ServerEvent]]] = {
    ListKind.TOOLS: ToolsListChanged,
    ListKind.PROMPTS: PromptsListChanged,
    ListKind.RESOURCES: ResourcesListChanged,
}


def session_manager(listing: Listing, streams: Streams) -> StreamableHTTPSessionManager:
    """What answers requests, each for itself: nothing is kept between two, so any replica will do."""
    # It tells of the end of a session at every request of 2025.
    logging.getLogger("mcp").setLevel(logging.WARNING)
    return StreamableHTTPSessionManager(_server(listing, streams), json_response=True, stateless=True)


class _Server(Server[Any]):
    """A server that tells clients of 2025, too, of changes of its lists: the endpoint does."""

    def create_initialization_options(
        self,
        notification_options: NotificationOptions | None = None,  # noqa: ARG002 - all there are
        experimental_capabilities: dict[str, dict[str, Any]] | None = None,
        extensions: dict[str, dict[str, Any]] | None = None,
    ) -> InitializationOptions:
        all_lists = NotificationOptions(prompts_changed=True, resources_changed=True, tools_changed=True)
        return super().create_initialization_options(all_lists, experimental_capabilities, extensions)


def _server(listing: Listing, streams: Streams) -> _Server:
    lists = _Lists(listing)
    return _Server(
        "weft",
        version=version("weft"),
        title="Weft",
        instructions=INSTRUCTIONS,
        on_list_tools=lists.tools,
        on_list_prompts=lists.prompts,
        on_list_resources=lists.resources,
        on_list_resource_templates=lists.templates,
        on_call_tool=_elsewhere,
        on_get_prompt=_elsewhere,
        on_read_resource=_elsewhere,
        on_completion=_elsewhere,
        on_subscriptions_listen=_Listening(listing, streams),
        get_tool_input_schema=lambda _name: None,
    )


class _Lists:
    """Answers what a client asks for, of what it may use."""

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self._tools = Writer(Tool)
        self._tools_for_older = Writer(Tool, _for_older)
        self._prompts = Writer(Prompt)
        self._resources = Writer(Resource)
        self._templates = Writer(ResourceTemplate)

    async def tools(self, context: _Context, params: PaginatedRequestParams | None) -> ListToolsResult:
        older = context.protocol_version not in MODERN_PROTOCOL_VERSIONS
        writer = self._tools_for_older if older else self._tools
        rest = _page(context, params, "tools", self._of(context).tools, writer)
        return ListToolsResult(tools=[], **rest)

    async def prompts(self, context: _Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        rest = _page(context, params, "prompts", self._of(context).prompts, self._prompts)
        return ListPromptsResult(prompts=[], **rest)

    async def resources(
        self, context: _Context, params: PaginatedRequestParams | None
    ) -> ListResourcesResult:
        rest = _page(context, params, "resources", self._of(context).resources, self._resources)
        return ListResourcesResult(resources=[], **rest)

    async def templates(
        self, context: _Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        rest = _page(context, params, "resourceTemplates", self._of(context).templates, self._templates)
        return ListResourceTemplatesResult(resource_templates=[], **rest)

    def _of(self, context: _Context) -> McpCatalogue:
        return self._listing.of(_asker(context).id)


class _Listening:
    """Serves `subscriptions/listen`: each caller is told of its own lists."""

    def __init__(self, listing: Listing, streams: Streams) -> None:
        self._listing = listing
        self._streams = streams

    async def __call__(
        self, context: _Context, params: SubscriptionsListenRequestParams
    ) -> SubscriptionsListenResult:
        who = _asker(context)
        before = self._listing.of(who.id)
        bus = InMemorySubscriptionBus()
        listening = ListenHandler(bus)
        try:
            with self._streams.place(who.name):
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._tell, bus, listening, who, before)
                    result = await listening(context, params)
                    tasks.cancel_scope.cancel()
                return result
        except TooMany as error:
            raise MCPError(INTERNAL_ERROR, error.detail) from error

    async def _tell(
        self, bus: InMemorySubscriptionBus, listening: ListenHandler, who: Asker, before: McpCatalogue
    ) -> None:
        async with aclosing(self._streams.until_end(self._listing.changes(who.id, before))) as changes:
            async for changed in changes:
                if not who.admitted():
                    break
                for kind in ListKind:
                    if kind in changed:
                        await bus.publish(_EVENTS[kind]())
        listening.close()


async def _elsewhere(
    _context: _Context,
    _params: CallToolRequestParams
    | GetPromptRequestParams
    | ReadResourceRequestParams
    | CompleteRequestParams,
) -> Any:
    raise MCPError(
        INVALID_PARAMS, "the control plane only lists: calls are made at http://tools.mesh/mcp, by a sidecar"
    )


def _asker(context: _Context) -> Asker:
    return asker(_scope(context))


def _scope(context: _Context) -> Scope:
    request: Request | None = context.request
    assert request is not None  # noqa: S101 - all come by HTTP
    return request.scope


def _page(
    context: _Context, params: PaginatedRequestParams | None, name: str, entries: Any, writer: Writer
) -> dict[str, Any]:
    """Fill the list `name` of the answer; what else there is to say of it."""
    try:
        page: Page[Any] = page_of(entries, params.cursor if params is not None else None, writer.write)
    except InvalidRequest as error:
        raise MCPError(INVALID_PARAMS, error.detail) from error
    fill(_scope(context), name, (writer.write(each.definition) for each in page.entries))
    return {"next_cursor": page.next, "ttl_ms": TTL, "cache_scope": "private"}


def _for_older(definition: JsonObject) -> JsonObject:
    """A tool for clients of 2025, to whom all results are objects."""
    output = definition.get("outputSchema")
    if output is None or output.get("type") == "object":
        return definition
    return {name: each for name, each in definition.items() if name != "outputSchema"}
