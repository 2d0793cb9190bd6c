"""Real Envoys with what the translation makes, given to them as files instead of by xDS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from envoy.config.bootstrap.v3.bootstrap_pb2 import Bootstrap
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from envoy.service.discovery.v3.discovery_pb2 import Resource
from google.protobuf.json_format import MessageToDict

from weft.aio.children import spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.controlplane.xds.snapshot import EncodedResource, Snapshot
from weft.model import telemetry_wire
from weft.model.mcp_wire import SESSIONS_CLUSTER
from weft.model.node import Address, Node
from weft.sidecar.bootstrap import AGENT_CLUSTER, MESH_CLUSTER, sessions_socket
from weft.sidecar.envoy import envoy_program

LIMIT = 60.0
"""Seconds in which anything waited for happens."""


class StaticEnvoy:
    """A running Envoy whose secrets are in `directory`, and that is asked by `admin`."""

    def __init__(self, directory: Path, admin: httpx.AsyncClient) -> None:
        self.directory = directory
        self.admin = admin

    def denials(self) -> list[str]:
        """What it has written to its standard output, line by line."""
        return (self.directory / "stdout").read_text(errors="replace").splitlines()

    async def stat(self, name: str) -> int:
        """One of its counters."""
        response = await self.admin.get("http://envoy/stats", params={"filter": f"^{name}$"})
        return sum(int(line.rpartition(" ")[2]) for line in response.text.splitlines())

    async def serials(self) -> set[str]:
        """The serial numbers of the leaf certificates that it shows now, in hexadecimal digits."""
        return await self._certificates("cert_chain")

    async def roots(self) -> set[str]:
        """Those of the roots by which it believes others."""
        return await self._certificates("ca_cert")

    async def _certificates(self, kind: str) -> set[str]:
        contexts = (await self.admin.get("http://envoy/certs")).json()["certificates"]
        return {each["serial_number"].lstrip("0") for context in contexts for each in context.get(kind, [])}


@asynccontextmanager
async def running_envoy(
    snapshot: Snapshot,
    node: Node,
    secrets: Callable[[Path], None],
    *,
    adapt: Callable[[Cluster], None] | None = None,
) -> AsyncIterator[StaticEnvoy]:
    """An Envoy that has what `node` is to have, and listens; it is gone when the context is left.

    `secrets` writes what it proves itself with into its directory; `adapt` may change its clusters.
    """
    with TemporaryDirectory(prefix="wt-") as name:
        directory = Path(name)
        secrets(directory)
        config = directory / "envoy.json"
        config.write_text(json.dumps(_as_files(snapshot, node, adapt, directory / "admin")))
        async with Guard(grace=0.1) as guard:
            with (directory / "stdout").open("wb") as out, (directory / "stderr").open("wb") as err:
                options = (
                    "--disable-hot-restart",
                    "--concurrency",
                    "1",
                    "--log-level",
                    "warning",
                    "--file-flush-interval-msec",
                    "100",
                )
                child = await spawn(
                    [envoy_program(), "--config-path", str(config), *options],
                    guard=guard,
                    environ={},
                    stdout=out.fileno(),
                    stderr=err.fileno(),
                    directory=directory,
                )
            transport = httpx.AsyncHTTPTransport(uds=str(directory / "admin"))
            async with httpx.AsyncClient(transport=transport) as admin:

                async def ready() -> bool:
                    assert child.running, (directory / "stderr").read_text(errors="replace")
                    with suppress(httpx.TransportError):
                        return (await admin.get("http://envoy/ready")).status_code == httpx.codes.OK
                    return False

                try:
                    async with asyncio.timeout(LIMIT):
                        await until(ready)
                    yield StaticEnvoy(directory, admin)
                finally:
                    await child.stop(0)


class EchoAgent:
    """An agent that answers every request with its headers, as a JSON object."""

    def __init__(self) -> None:
        self._server: asyncio.Server | None = None
        self.port = 0
        self.calls = 0

    async def __aenter__(self) -> EchoAgent:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=256 * 1024)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
                self.calls += 1
                body = json.dumps(headers)
                writer.write(f"HTTP/1.1 200 OK\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode())
                await writer.drain()
        writer.close()


def _as_files(
    snapshot: Snapshot, node: Node, adapt: Callable[[Cluster], None] | None, admin: Path
) -> dict[str, Any]:
    routes = {each.name: each for each in _unpacked(snapshot.routes.values(), RouteConfiguration)}
    assignments = {
        each.cluster_name: each for each in _unpacked(snapshot.endpoints.values(), ClusterLoadAssignment)
    }
    bootstrap = Bootstrap()
    bootstrap.node.id = node.key
    bootstrap.node.cluster = "test"
    bootstrap.admin.address.pipe.path = str(admin)
    for cluster in _unpacked(snapshot.clusters.values(), Cluster):
        if cluster.type == Cluster.EDS:
            cluster.type = Cluster.STATIC
            cluster.ClearField("eds_cluster_config")
            cluster.load_assignment.CopyFrom(assignments[cluster.name])
        if adapt is not None:
            adapt(cluster)
        bootstrap.static_resources.clusters.append(cluster)
    if node.inbound is not None:
        bootstrap.static_resources.clusters.append(_static(AGENT_CLUSTER, node.inbound.agent))
    if (socket := sessions_socket(admin.parent, node.inbound)) is not None:
        cluster = _static(SESSIONS_CLUSTER, Address("", 0))
        cluster.load_assignment.endpoints[0].lb_endpoints[0].endpoint.address.pipe.path = str(socket)
        bootstrap.static_resources.clusters.append(cluster)
    if node.outside is not None:
        bootstrap.static_resources.clusters.append(_static(MESH_CLUSTER, node.outbound))
    # Where nobody takes spans, they are lost.
    telemetry = Cluster(name=telemetry_wire.CLUSTER, type=Cluster.STATIC)
    telemetry.load_assignment.cluster_name = telemetry.name
    bootstrap.static_resources.clusters.append(telemetry)
    for listener in _unpacked(snapshot.listeners.values(), Listener):
        _put_routes_in(listener, routes)
        bootstrap.static_resources.listeners.append(listener)
    as_json: dict[str, Any] = MessageToDict(bootstrap, preserving_proto_field_name=True)
    return as_json


def _put_routes_in(listener: Listener, routes: Mapping[str, RouteConfiguration]) -> None:
    for each in listener.filter_chains[0].filters:
        manager = HttpConnectionManager()
        if each.typed_config.Unpack(manager) and manager.HasField("rds"):
            manager.route_config.CopyFrom(routes[manager.rds.route_config_name])
            for part in manager.http_filters:
                if part.HasField("config_discovery"):
                    part.typed_config.CopyFrom(part.config_discovery.default_config)
            each.typed_config.Pack(manager)


def _static(name: str, at: Address) -> Cluster:
    cluster = Cluster(name=name, type=Cluster.STATIC)
    cluster.load_assignment.cluster_name = name
    endpoint = cluster.load_assignment.endpoints.add().lb_endpoints.add().endpoint
    endpoint.hostname = str(at)
    endpoint.address.socket_address.address, endpoint.address.socket_address.port_value = at.host, at.port
    return cluster


def _unpacked(resources: Iterable[EncodedResource], message: type[Any]) -> list[Any]:
    unpacked = []
    for each in resources:
        result = message()
        assert Resource.FromString(each.wire).resource.Unpack(result)
        unpacked.append(result)
    return unpacked
