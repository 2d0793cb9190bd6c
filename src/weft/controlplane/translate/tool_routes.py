"""The virtual host `tools.mesh`: one MCP server with everything that the mesh's servers have."""

from __future__ import annotations

from envoy.config.route.v3.route_components_pb2 import Route, RouteAction, RouteMatch, VirtualHost

from weft.controlplane.translate.answers import answer, any_call
from weft.controlplane.translate.durations import duration
from weft.controlplane.translate.tool_context import largest_request
from weft.controlplane.translate.tool_filters import outbound_tool_filters_on
from weft.errors import NotFound
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.mcp_wire import MCP_PATH, TOOLS_HOST
from weft.model.names import LOCALHOST_DOMAIN, MESH_DOMAIN


def tools_host(catalogue: McpCatalogue, *, control: str, fault_filter: str) -> VirtualHost:
    """The virtual host; `control` is the cluster that answers what is for none of the servers."""
    domains = [TOOLS_HOST, f"{TOOLS_HOST}.{MESH_DOMAIN}", f"{TOOLS_HOST}.{LOCALHOST_DOMAIN}"]
    host = VirtualHost(name=TOOLS_HOST, domains=domains)
    # Streams of news are silent for as long as there are none.
    action = RouteAction(cluster=control, timeout=duration(0), idle_timeout=duration(0))
    route = Route(name="tools", match=RouteMatch(path=MCP_PATH), route=action)
    route.request_body_buffer_limit.value = largest_request(catalogue)
    for name, each in outbound_tool_filters_on(catalogue, fault_filter=fault_filter).items():
        route.typed_per_filter_config[name].Pack(each)
    host.routes.append(route)
    detail = f"tools.mesh is an MCP server at {MCP_PATH}, and nothing else"
    host.routes.append(answer("not mcp", any_call(), NotFound, detail))
    return host
