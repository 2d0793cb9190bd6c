"""The tools of a mesh over HTTP: as MCP has them at `/mcp`, and with where they come from at `/v1/tools`."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response
from starlette.types import Receive, Scope, Send

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller, Peer
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Context, CurrentTools
from weft.controlplane.mcp.pages import MAX_CURSOR, page_of
from weft.controlplane.mcp.virtual_server import VirtualServer
from weft.model.mcp_catalogue import McpCatalogue, McpServer, PublishedTool
from weft.model.mcp_wire import MCP_PATH
from weft.model.names import MAX_NAME_LENGTH
from weft.model.offer import McpGeneration
from weft.model.operator import Scope as OperatorScope
from weft.model.spiffe import Role
from weft.model.tool import ToolSpec

_MAY_ASK = [Depends(requires(OperatorScope.VIEWER, peers=(Role.AGENT, Role.OPERATOR)))]

router = APIRouter(tags=["tools"], dependencies=_MAY_ASK)

MAX_TEXT = 200
"""Characters of a text to search for."""


class ToolOut(Body):
    """One tool, as `tools.mesh` has it."""

    name: str
    server: str
    """The agent type whose instances have it."""
    original: str
    """What the server calls it."""
    aliases: list[str]
    """Names by which it can be called too."""
    title: str
    description: str
    input_schema: dict[str, Any]
    idempotent: bool
    """Whether a call is made again elsewhere when it failed."""
    timeout: float | None
    """Seconds; null: as the server's TrafficPolicy says."""
    max_arguments: int
    """Size of a request, in bytes."""
    max_result: int
    """Size of an answer, in bytes."""


class ToolServerOut(Body):
    """One MCP server."""

    type: str
    title: str
    path: str
    """Where its instances take requests."""
    generation: McpGeneration | None
    """Of MCP; null: it could not be read yet."""
    tools: int
    """How many of them are seen; likewise the following."""
    prompts: int
    resources: int
    templates: int
    notes: list[str]
    """What was left out, or could not be read, and why. Operators see them."""


class Tools(Body):
    """Some of the tools, in the order in which clients see them, and the servers by type."""

    items: list[ToolOut]
    servers: list[ToolServerOut]
    next: str | None
    """Goes into `after` to get the rest; null where there is none."""


@router.get("/v1/tools")
async def list_tools(
    context: Context,
    tools: CurrentTools,
    caller: CurrentCaller,
    *,
    server: Annotated[str | None, Query(max_length=MAX_NAME_LENGTH)] = None,
    q: Annotated[str | None, Query(max_length=MAX_TEXT)] = None,
    after: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
) -> Tools:
    """The tools that the caller may use, of all servers or one; operators see all, and notes about servers.

    `q`: a text that their names, titles or descriptions have in them, whatever its case.
    """
    seen = tools.listing.of(caller.id if isinstance(caller, Peer) else None)
    specs = {
        each.spec.server: each.spec
        for each in context.declared.resources.values()
        if isinstance(each.spec, ToolSpec)
    }
    found = [
        each
        for each in seen.tools
        if server in {None, each.server.type} and (q is None or _has(each, q.casefold()))
    ]
    page = page_of(found, after, lambda definition: json.dumps(definition).encode())
    return Tools(
        items=[_tool(each) for each in page.entries],
        servers=[each for each in _servers(seen, specs) if server in {None, each.type}],
        next=page.next,
    )


@router.api_route(MCP_PATH, methods=["GET", "POST", "DELETE"], include_in_schema=False)
async def mcp(tools: CurrentTools) -> Response:
    """The lists of `tools.mesh` by MCP. Calls are made through sidecars, at `http://tools.mesh/mcp`."""
    return _HandedOn(tools)


class _HandedOn(Response):
    """The answer of somebody else."""

    def __init__(self, server: VirtualServer) -> None:
        super().__init__()
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._server(scope, receive, send)


def _has(tool: PublishedTool, text: str) -> bool:
    told = (tool.name, tool.definition.get("title", ""), tool.definition.get("description", ""))
    return any(text in each.casefold() for each in told)


def _tool(tool: PublishedTool) -> ToolOut:
    definition = tool.definition
    return ToolOut(
        name=tool.name,
        server=tool.server.type,
        original=tool.original,
        aliases=list(tool.aliases),
        title=definition.get("title") or definition.get("annotations", {}).get("title", ""),
        description=definition.get("description", ""),
        input_schema=dict(definition["inputSchema"]),
        idempotent=tool.idempotent,
        timeout=tool.timeout,
        max_arguments=tool.max_arguments,
        max_result=tool.max_result,
    )


def _servers(seen: McpCatalogue, specs: dict[str, ToolSpec]) -> list[ToolServerOut]:
    """The servers that were read, and those of which there is only a note."""
    known: dict[str, McpServer | None] = {each.type: each for each in seen.servers}
    for name in seen.notes:
        known.setdefault(name, None)
    return [
        ToolServerOut(
            type=name,
            title=specs[name].title if name in specs else "",
            path=each.path if each is not None else "",
            generation=each.generation if each is not None else None,
            tools=sum(it.server.type == name for it in seen.tools),
            prompts=sum(it.server.type == name for it in seen.prompts),
            resources=sum(it.server.type == name for it in seen.resources),
            templates=sum(it.server.type == name for it in seen.templates),
            notes=list(seen.notes.get(name, ())),
        )
        for name, each in sorted(known.items())
    ]
