"""Routes (RDS) of an inbound listener: to the agent, and nowhere else, for those who may call it.

What AccessPolicies say stands here and not in the listener, since a change of a listener ends its
connections, and lets them go on by old rules until then. Changed routes hold for the next call on each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from envoy.config.route.v3.route_components_pb2 import (
    HeaderMatcher,
    Route,
    RouteAction,
    RouteMatch,
    VirtualHost,
)
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from weft.controlplane.translate.access import Access, restrict
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.http_listener import turned_on
from weft.controlplane.translate.replies import DESTINATION_HEADER, REFUSED_HEADER, header
from weft.controlplane.translate.tool_filters import SESSION_FILTER, WHOLE_FILTER
from weft.model.decision import AccessTarget
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.mcp_wire import CLIENT_SESSION_HEADER, SESSION_LOST, TOOL_HEADER, WHOLE_HEADER
from weft.model.node import AgentProtocol, Inbound
from weft.model.offer import McpGeneration
from weft.model.telemetry_wire import RECORD_HEADER, RECORD_MESSAGES

INBOUND_ROUTES = "inbound"
"""The name of these routes, of which every sidecar with an agent has its own."""

AGENT_CLUSTER = "agent"
"""The sidecar's own agent; it stands in the sidecar's bootstrap, since only the sidecar knows it."""


_MCP = frozenset({AgentProtocol.MCP, AgentProtocol.MCP_STDIO})

_KEPT_BYTES = 64 * 1024 * 1024
"""How much of an answer is kept back at most, where none may go by halves."""


@dataclass(frozen=True, slots=True)
class McpSide:
    """What there is to do for an agent as an MCP server."""

    local_host: bool = False
    """Whether it gets its own address for a host: MCP's libraries take no other on loopback."""
    tools: bool = False
    """Whether calls by way of `tools.mesh` come to it."""
    sessions: bool = False
    """Whether those need a session, which the sidecar keeps."""


NO_MCP = McpSide()


def mcp_side(inbound: Inbound, catalogue: McpCatalogue) -> McpSide:
    """What the agent behind an inbound listener is to `catalogue`."""
    local_host = inbound.protocol in _MCP
    server = next((each for each in catalogue.servers if each.type == inbound.type), None)
    if server is None:
        return McpSide(local_host)
    return McpSide(
        local_host, tools=True, sessions=local_host and server.generation is McpGeneration.SESSIONS
    )


def inbound_routes(
    agent: AccessTarget, access: Access, mcp: McpSide = NO_MCP, *, record: bool = False
) -> RouteConfiguration:
    """The routes to `agent`. The caller's Envoy times its calls. `record`: whether it is to record them."""
    host = VirtualHost(name="agent", domains=["*"], routes=[*_tool_routes(mcp), _route(mcp)])
    if record:
        host.request_headers_to_add.append(header(RECORD_HEADER, RECORD_MESSAGES))
    # What the caller's Envoy noted for itself is none of the agent's business.
    routes = RouteConfiguration(
        name=INBOUND_ROUTES,
        virtual_hosts=[host],
        request_headers_to_remove=[DESTINATION_HEADER, "x-envoy-external-address"],
    )
    restrict(routes, agent, access)
    return routes


def _route(mcp: McpSide) -> Route:
    action = RouteAction(cluster=AGENT_CLUSTER, timeout=duration(0), idle_timeout=duration(0))
    # The agent may have closed an idle connection just as a call was put on it: nothing was sent yet.
    action.retry_policy.retry_on = "reset-before-request"
    if mcp.local_host:
        action.auto_host_rewrite.value = True
    return Route(name="agent", match=RouteMatch(prefix="/"), route=action)


def _tool_routes(mcp: McpSide) -> Iterator[Route]:
    """The most specific first."""
    if not mcp.tools:
        return
    for whole in (True, False):
        route = _route(mcp)
        route.name = "tool, whole" if whole else "tool"
        route.match.headers.append(HeaderMatcher(name=TOOL_HEADER, present_match=True))
        route.request_headers_to_remove.extend([CLIENT_SESSION_HEADER, WHOLE_HEADER])
        if whole:
            route.match.headers.append(HeaderMatcher(name=WHOLE_HEADER, present_match=True))
            route.request_body_buffer_limit.value = _KEPT_BYTES
            route.typed_per_filter_config[WHOLE_FILTER].Pack(turned_on())
        if mcp.sessions:
            route.typed_per_filter_config[SESSION_FILTER].Pack(turned_on())
            # It does not know the session, so it has done nothing: another attempt has a new one.
            lost = f"%CEL(response.code == 404 ? '{SESSION_LOST}' : '')%"
            route.response_headers_to_add.append(header(REFUSED_HEADER, lost))
        yield route
