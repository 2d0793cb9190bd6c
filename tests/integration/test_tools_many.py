"""A thousand tools of fifty servers: each call gets to its own, whatever else is in the catalogue."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import httpx
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from tests.envoys import LIMIT, running_envoy
from tests.pki import Pki
from tests.sds import write_secrets
from tests.tool_mesh import HOST, RawServer, answered, headers_2026, message, meta, published, server

from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.model.agent import Instance, Status
from weft.model.mcp_catalogue import McpCatalogue
from weft.model.node import Address, Node

SERVERS = [server(f"server-{number}") for number in range(50)]
TOOLS = 20
"""Of each server."""


async def test_each_of_a_thousand_tools_is_called_at_the_server_whose_it_is() -> None:
    tools = [
        published(each, f"tool.{at * TOOLS + n}", f"tool {n}", aliases=(f"{each.type}_{n}",))
        for at, each in enumerate(SERVERS)
        for n in range(TOOLS)
    ]
    async with AsyncExitStack() as stack:
        instances = []
        for each in SERVERS:
            port = await stack.enter_async_context(RawServer(partial(answer, each.type)).serving())
            instances.append(Instance("one", each.type, f"{HOST}:{port}", Status.HEALTHY))
        outbound = stack.enter_context(reserve_port(HOST))
        node = Node("a-1", Address(HOST, outbound.port))
        snapshots = Snapshots([Address(HOST, 9)])
        snapshots.update(instances, [])
        snapshots.update_tools(McpCatalogue(servers=tuple(SERVERS), tools=tuple(tools)))
        secrets = partial(write_secrets, pki=Pki(), identity="spiffe://weft.local/agent/asker/a-1")
        await stack.enter_async_context(
            running_envoy(snapshots.snapshot(node), node, secrets, adapt=without_sidecars)
        )
        client = await stack.enter_async_context(
            httpx.AsyncClient(proxy=f"http://{node.outbound}", timeout=LIMIT, trust_env=False)
        )
        called = await asyncio.gather(*(calls(client, at, len(tools)) for at in range(4)))
    found = Counter(each for part in called for each in part)
    assert found == Counter((each.server.type, each.original, name) for each in tools for name in names(each))


def names(tool: Any) -> tuple[str, ...]:
    return (tool.name, *tool.aliases)


async def calls(client: httpx.AsyncClient, first: int, number: int) -> list[tuple[str, str, str]]:
    """Call every fourth tool, each by both of its names: server, the name it was called by, by which name."""
    found = []
    for at in range(first, number, 4):
        for name in (f"tool.{at}", f"server-{at // TOOLS}_{at % TOOLS}"):
            body, headers = message(name, request_id=at, meta=meta()), headers_2026(name)
            said = answered(await client.post("http://tools.mesh/mcp", json=body, headers=headers))
            assert said["id"] == at
            found.append((said["result"]["server"], said["result"]["name"], name))
    return found


async def answer(own: str, _line: str, headers: dict[str, str], body: bytes) -> AsyncIterator[bytes]:
    """Says who it is, and for what it was called."""
    request = json.loads(body)
    assert headers["mcp-name"] == request["params"]["name"]
    result = {"resultType": "complete", "content": [], "server": own, "name": request["params"]["name"]}
    text = json.dumps({"jsonrpc": "2.0", "id": request["id"], "result": result})
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(text)}\r\n\r\n"
    yield f"{head}{text}".encode()


def without_sidecars(cluster: Cluster) -> None:
    """Servers are called as they are: fifty Envoys would be a lot."""
    cluster.ClearField("transport_socket")
    if cluster.name.startswith("type/"):
        cluster.ClearField("typed_extension_protocol_options")
