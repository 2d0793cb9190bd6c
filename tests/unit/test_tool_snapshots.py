"""What sidecars are told of tools: the routes and the script's context, from a catalogue."""

from __future__ import annotations

from dataclasses import replace

import pytest
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.lua.v3.lua_pb2 import LuaPerRoute
from envoy.service.discovery.v3.discovery_pb2 import Resource

from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.inbound_routes import INBOUND_ROUTES, McpSide, mcp_side
from weft.controlplane.translate.lua_scripts import quoted
from weft.controlplane.translate.routes import ROUTE_CONFIGURATION
from weft.controlplane.translate.tool_context import context_text, largest_request, tool_context
from weft.controlplane.translate.tool_filters import SCRIPT_FILTER, SESSION_FILTER
from weft.controlplane.translate.tool_scripts import request_script
from weft.model.agent import Instance, Status
from weft.model.mcp_catalogue import (
    NO_TOOLS,
    McpCatalogue,
    McpServer,
    PublishedPrompt,
    PublishedResource,
    PublishedTemplate,
    PublishedTool,
)
from weft.model.node import Address, AgentProtocol, Inbound, Node
from weft.model.offer import McpGeneration
from weft.model.tool import MAX_RESULT_BYTES

HOST = "127.0.0.1"
NEW = McpServer("search", "/mcp", McpGeneration.STATELESS)
OLD = McpServer("files", "/sse/mcp", McpGeneration.SESSIONS)
SCHEMA = {
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "odd": {"x-mcp-header": "no header\r\n"},
        "plain": {"type": "string"},
        "wrong": 5,
    }
}
CATALOGUE = McpCatalogue(
    servers=(NEW, OLD),
    tools=(
        PublishedTool("find", NEW, "find", {}),
        PublishedTool(
            "files_read", OLD, "read file", {"inputSchema": SCHEMA}, aliases=("read", "find"),
            idempotent=True, timeout=1.5, max_arguments=2048, max_result=4096,
        ),
    ),
    resources=(PublishedResource("mem://x", NEW, {}),),
    templates=(PublishedTemplate("mem://{id}", "mem://", OLD, {}),),
    prompts=(PublishedPrompt("greet", OLD, "greet", {}, aliases=("files_greet",)),),
    notes={"files": ("something",)},
)  # fmt: skip


def node(protocol: AgentProtocol = AgentProtocol.MCP, type_: str = "files") -> Node:
    inbound = Inbound(type_, Address(HOST, 2), Address(HOST, 3), protocol)
    return Node("f-1", Address(HOST, 1), inbound)


def routes(snapshots: Snapshots, of: Node, name: str) -> RouteConfiguration:
    result = RouteConfiguration()
    assert Resource.FromString(snapshots.snapshot(of).routes[name].wire).resource.Unpack(result)
    return result


def tools_host(snapshots: Snapshots) -> VirtualHost:
    hosts = routes(snapshots, node(), ROUTE_CONFIGURATION).virtual_hosts
    return next(each for each in hosts if each.name == "tools")


def with_tools(tools: McpCatalogue) -> Snapshots:
    snapshots = Snapshots([Address(HOST, 9)])
    snapshots.update([Instance("f-1", "files", f"{HOST}:2", Status.HEALTHY)], [])
    snapshots.update_tools(tools)
    return snapshots


def test_the_script_knows_of_each_name_whose_it_is_and_what_is_unusual_about_it() -> None:
    assert tool_context(CATALOGUE) == {
        "s:search": {"path": "/mcp"},
        "s:files": {"path": "/sse/mcp", "old": "1"},
        "t:find": {"server": "search"},
        "t:read": {"alias": "files_read"},
        "t:files_read": {
            "server": "files", "original": "read file", "idempotent": "1", "timeout": "1500",
            "request": "2048", "result": "4096", "header.region": "region",
        },
        "p:greet": {"server": "files"},
        "p:files_greet": {"alias": "greet"},
        "r:mem://x": {"server": "search"},
        "r:mem://{id}": {"server": "files"},
        "b:mem://": {"server": "files"},
    }  # fmt: skip
    assert tool_context(NO_TOOLS) == {}


def test_envoy_lets_in_more_than_the_largest_request_or_answer_may_have() -> None:
    large = replace(CATALOGUE.tools[0], max_arguments=60_000_000)
    assert largest_request(NO_TOOLS) > MAX_RESULT_BYTES
    assert largest_request(replace(CATALOGUE, tools=(large,))) > 60_000_000


def test_the_way_to_the_tools_has_the_context_and_leads_to_the_control_plane() -> None:
    host = tools_host(with_tools(CATALOGUE))
    assert list(host.domains) == ["tools", "tools.mesh", "tools.mesh.localhost"]
    [tools] = [each for each in host.routes if each.route.cluster == "control"]
    assert (tools.match.path, tools.route.timeout.ToMilliseconds()) == ("/mcp", 0)
    script = LuaPerRoute()
    assert tools.typed_per_filter_config[SCRIPT_FILTER].Unpack(script)
    text = context_text(tool_context(CATALOGUE))
    assert script.source_code.inline_string == request_script(text)
    assert quoted(text) in request_script(text)


def test_names_of_servers_stand_in_the_script_as_mere_text() -> None:
    odd = 'a\tb\n"]]--\\%%\x00é\r'
    catalogue = replace(CATALOGUE, tools=(PublishedTool("odd", NEW, odd, {}),))
    text = context_text(tool_context(catalogue))
    assert 't:odd\tserver=search\toriginal=a%09b%0a"]]--\\%25%25%00é%0d' in text.split("\n")
    assert quoted(odd) == r'"a\009b\010\034\093\093--\092\037\037\000\195\169\013"'


def test_sidecars_hear_of_tools_that_changed_and_of_notes_nothing() -> None:
    snapshots = with_tools(CATALOGUE)
    before, generation = snapshots.snapshot(node()).routes, snapshots.generation
    snapshots.update_tools(replace(CATALOGUE, notes={"files": ("another",)}))
    assert (snapshots.generation, snapshots.snapshot(node()).routes) == (generation, before)
    snapshots.update_tools(replace(CATALOGUE, tools=()))
    assert snapshots.generation > generation
    changed = snapshots.snapshot(node()).routes
    assert changed[ROUTE_CONFIGURATION].version != before[ROUTE_CONFIGURATION].version
    assert changed[INBOUND_ROUTES].version == before[INBOUND_ROUTES].version


@pytest.mark.parametrize(
    ("protocol", "type_", "expected"),
    [
        (AgentProtocol.MCP, "files", McpSide(local_host=True, tools=True, sessions=True)),
        (AgentProtocol.MCP_STDIO, "files", McpSide(local_host=True, tools=True, sessions=True)),
        (AgentProtocol.MCP, "search", McpSide(local_host=True, tools=True)),
        (AgentProtocol.MCP, "unread", McpSide(local_host=True)),
        (AgentProtocol.HTTP1, "files", McpSide(tools=True)),
        (AgentProtocol.A2A, "other", McpSide()),
    ],
)
def test_what_is_done_for_a_server_depends_on_what_it_speaks(
    protocol: AgentProtocol, type_: str, expected: McpSide
) -> None:
    inbound = node(protocol, type_).inbound
    assert inbound is not None
    assert mcp_side(inbound, CATALOGUE) == expected


def asking_for_sessions(snapshots: Snapshots, of: Node) -> list[Route]:
    [host] = routes(snapshots, of, INBOUND_ROUTES).virtual_hosts
    return [each for each in host.routes if SESSION_FILTER in each.typed_per_filter_config]


def test_only_calls_of_tools_to_servers_with_sessions_ask_for_one() -> None:
    snapshots = with_tools(CATALOGUE)
    found = asking_for_sessions(snapshots, node())
    assert found
    for each in found:
        assert "x-weft-tool" in {matcher.name for matcher in each.match.headers}
    assert not asking_for_sessions(snapshots, node(type_="search"))
    assert not asking_for_sessions(snapshots, node(AgentProtocol.HTTP1))
    snapshots.update_tools(replace(CATALOGUE, servers=(replace(OLD, generation=McpGeneration.STATELESS),)))
    assert not asking_for_sessions(snapshots, node())
