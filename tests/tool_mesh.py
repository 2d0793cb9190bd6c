"""An agent that calls tools, and the servers that have them: real Envoys, and `tools.mesh` between them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import httpx2
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.envoys import LIMIT, StaticEnvoy, running_envoy
from tests.mcp_servers import McpApp, Toolbox, serving_mcp
from tests.pki import Pki
from tests.sds import write_secrets
from weft.aio.ports import reserve_port
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.translate.clusters import CONTROL_CLUSTER
from weft.model.agent import Instance, Status
from weft.model.mcp_catalogue import McpCatalogue, McpServer, PublishedTool
from weft.model.node import Address, AgentProtocol, Inbound, Node
from weft.model.offer import McpGeneration
from weft.model.resource import AnyResource
from weft.sidecar.bootstrap import sessions_socket
from weft.sidecar.mcp_sessions import sessions_kept

HOST = "127.0.0.1"
URL = "http://tools.mesh/mcp"
META = "io.modelcontextprotocol/"

Handler = Callable[[str, dict[str, str], bytes], AsyncIterator[bytes]]
"""What a raw server answers, piece by piece, to a request line, headers and body; nothing: it hangs up."""


@dataclass
class RawServer:
    """A server that says whatever its `handler` says, and keeps what it was asked."""

    handler: Handler | None = None
    requests: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[int]:
        """Within the context it serves; yields the port."""
        server = await asyncio.start_server(self._serve, HOST, 0, limit=2**20)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                line, *rest = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
                headers = {name.lower(): value for name, _, value in (each.partition(": ") for each in rest)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                self.requests.append((headers, body))
                assert self.handler is not None
                said = False
                async for piece in self.handler(line, headers, body):
                    said = True
                    writer.write(piece)
                    await writer.drain()
                if not said or headers.get("connection") == "close":
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()


@dataclass
class ToolServer:
    """One instance of an MCP server; `app` is a RawServer where it is not to be the SDK's."""

    type: str
    app: McpApp | RawServer
    instance: str = ""
    protocol: AgentProtocol = AgentProtocol.MCP
    sessions: bool = True
    """Whether its sidecar keeps some."""
    envoy: StaticEnvoy = field(init=False)

    @property
    def toolbox(self) -> Toolbox:
        """What it has."""
        assert isinstance(self.app, McpApp)
        return self.app.toolbox


@dataclass
class ToolMesh:
    """The agent's side."""

    outbound: int
    http: httpx.AsyncClient
    control: Toolbox
    """Stands for the control plane."""
    caller: StaticEnvoy

    @asynccontextmanager
    async def client(self, mode: str, **more: Any) -> AsyncIterator[Client]:
        """An unmodified client of `tools.mesh`; `legacy` is that of 2025-11-25."""
        async with httpx2.AsyncClient(proxy=f"http://{HOST}:{self.outbound}", timeout=LIMIT) as http:
            transport = streamable_http_client(URL, http_client=http)
            async with Client(transport, mode=mode, **more) as client:
                yield client

    async def post(
        self, body: bytes | Mapping[str, Any], headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """POST whatever it is, as a client of 2025-11-25 if nothing else is said."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        usual = {"accept": "application/json, text/event-stream", "content-type": "application/json"}
        return await self.http.post(URL, content=content, headers={**usual, **(headers or {})})

    async def call(self, name: str, arguments: Any = None, **more: Any) -> httpx.Response:
        """Call a tool as a client of 2025-11-25."""
        return await self.post(message(name, arguments, **more))

    async def call_2026(
        self, name: str, arguments: Any = None, headers: Mapping[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """Call a tool as a client of 2026-07-28."""
        return await self.post(
            message(name, arguments, meta=meta(), **more), {**headers_2026(name), **(headers or {})}
        )


def message(
    name: str,
    arguments: Any = None,
    *,
    request_id: Any = 7,
    meta: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """A call of a tool."""
    params = {"name": name, "arguments": arguments or {}} | ({} if meta is None else {"_meta": meta})
    return {"jsonrpc": "2.0", "id": request_id, "method": "tools/call", "params": params}


def meta(**more: Any) -> dict[str, Any]:
    """What a client of 2026-07-28 says of itself."""
    return {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {}, **more}


def headers_2026(name: str, method: str = "tools/call") -> dict[str, str]:
    """Its headers."""
    return {"mcp-protocol-version": "2026-07-28", "mcp-method": method, "mcp-name": name}


def answered(response: httpx.Response) -> dict[str, Any]:
    """The message in an answer, be it JSON or the last event of a stream."""
    if response.headers["content-type"].startswith("text/event-stream"):
        data = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
        return dict(json.loads(data[-1]))
    return dict(response.json())


def server(type_: str, *, old: bool = False) -> McpServer:
    """A server as the catalogue has it."""
    generation = McpGeneration.SESSIONS if old else McpGeneration.STATELESS
    return McpServer(type_, "/mcp", generation, completions=True)


def published(server: McpServer, name: str, original: str | None = None, **more: Any) -> PublishedTool:
    """A tool as the catalogue has it."""
    return PublishedTool(name, server, original or name, {"name": name, "inputSchema": {}}, **more)


@asynccontextmanager
async def tool_mesh(
    servers: Iterable[ToolServer], catalogue: McpCatalogue, resources: Iterable[AnyResource] = ()
) -> AsyncIterator[ToolMesh]:
    """An agent and these servers, each with its Envoy; all gone when the context is left."""
    pki, servers = Pki(), list(servers)
    async with AsyncExitStack() as stack:
        reserved = [stack.enter_context(reserve_port(HOST)) for _ in range(2 * len(servers) + 1)]
        ports = iter(each.port for each in reserved)
        control = Toolbox(name="weft", tools={each.name: {"type": "object"} for each in catalogue.tools})
        control_port = await stack.enter_async_context(serving_mcp(McpApp(control, json_response=True)))
        caller = Node("a-1", Address(HOST, next(ports)))
        nodes = [await _serve(stack, each, ports) for each in servers]
        snapshots = Snapshots([Address(HOST, control_port)])
        snapshots.update(
            [
                Instance(node.id, each.type, str(node.inbound.listen), Status.HEALTHY)
                for node, each in zip(nodes, servers, strict=True)
                if node.inbound is not None
            ],
            resources,
        )
        snapshots.update_tools(catalogue)
        for node, each in zip(nodes, servers, strict=True):
            await _start(stack, snapshots, node, each, pki)
        identity = "spiffe://weft.local/agent/asker/a-1"
        secrets = partial(write_secrets, pki=pki, identity=identity)
        envoy = running_envoy(snapshots.snapshot(caller), caller, secrets, adapt=_plain_control_plane)
        running = await stack.enter_async_context(envoy)
        http = httpx.AsyncClient(proxy=f"http://{caller.outbound}", timeout=LIMIT, trust_env=False)
        yield ToolMesh(caller.outbound.port, await stack.enter_async_context(http), control, running)


async def _serve(stack: AsyncExitStack, server: ToolServer, ports: Any) -> Node:
    serving = serving_mcp(server.app) if isinstance(server.app, McpApp) else server.app.serving()
    agent = Address(HOST, await stack.enter_async_context(serving))
    inbound = Inbound(server.type, Address(HOST, next(ports)), agent, server.protocol)
    server.instance = server.instance or f"{server.type}-1"
    return Node(server.instance, Address(HOST, next(ports)), inbound)


async def _start(
    stack: AsyncExitStack, snapshots: Snapshots, node: Node, server: ToolServer, pki: Pki
) -> None:
    assert node.inbound is not None
    identity = f"spiffe://weft.local/agent/{server.type}/{server.instance}"
    secrets = partial(write_secrets, pki=pki, identity=identity)
    envoy = running_envoy(snapshots.snapshot(node), node, secrets, adapt=_plain_control_plane)
    server.envoy = await stack.enter_async_context(envoy)
    if server.sessions:
        socket = sessions_socket(server.envoy.directory, node.inbound)
        await stack.enter_async_context(sessions_kept(node.inbound.agent, "/mcp", socket))


def _plain_control_plane(cluster: Cluster) -> None:
    """The server that stands for it has no certificate; and nobody is ejected for what a test has it say."""
    cluster.ClearField("outlier_detection")
    if cluster.name == CONTROL_CLUSTER:
        cluster.ClearField("transport_socket")
