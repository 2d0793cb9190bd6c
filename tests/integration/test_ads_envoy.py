"""The ADS server, as the real Envoy finds it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.core.v3.config_source_pb2 import ApiVersion
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_pb2 import RouteConfiguration
from envoy.extensions.filters.http.router.v3.router_pb2 import Router
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)
from prometheus_client import CollectorRegistry
from tests.binaries import ENVOY
from tests.pki import Pki
from tests.sds import write_secrets
from tests.xds import Log, OneSnapshot, Resources, server_identity, snapshot

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.controlplane.xds.credentials import server_credentials
from weft.controlplane.xds.server import AdsServer
from weft.controlplane.xds.snapshot import LISTENER, Snapshot, encode
from weft.controlplane.xds.status import SyncStatus
from weft.identity.bundle import TrustBundle, TrustBundles
from weft.model.node import Address, Node
from weft.sidecar.bootstrap import bootstrap
from weft.sidecar.sds import write_identity, write_trust

DOOR = "spiffe://weft.local/operator/alice/c-1"

LIMIT = 60.0
"""Seconds in which anything waited for happens; less than the 15 s after which Envoy goes on without."""


def clusters(*names: str, connect_timeout: int = 1) -> Resources:
    result = {}
    for name in names:
        cluster = Cluster(name=name, type=Cluster.EDS)
        cluster.connect_timeout.FromSeconds(connect_timeout)
        cluster.eds_cluster_config.eds_config.ads.SetInParent()
        cluster.eds_cluster_config.eds_config.resource_api_version = ApiVersion.V3
        result[name] = encode(name, cluster)
    return result


def endpoints(**ports: int) -> Resources:
    result = {}
    for name, port in ports.items():
        assignment = ClusterLoadAssignment(cluster_name=name)
        endpoint = assignment.endpoints.add().lb_endpoints.add().endpoint
        endpoint.address.socket_address.address = "127.0.0.1"
        endpoint.address.socket_address.port_value = port
        result[name] = encode(name, assignment)
    return result


def listener(port: int, *, prefix: str = "outbound") -> Resources:
    """A listener that takes its routes from RDS. Envoy rejects it if `prefix` is empty."""
    manager = HttpConnectionManager(stat_prefix=prefix)
    manager.rds.route_config_name = "all"
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = ApiVersion.V3
    router = manager.http_filters.add(name="envoy.filters.http.router")
    router.typed_config.Pack(Router())
    result = Listener(name="outbound")
    result.address.socket_address.address = "127.0.0.1"
    result.address.socket_address.port_value = port
    result.filter_chains.add().filters.add(
        name="envoy.filters.network.http_connection_manager"
    ).typed_config.Pack(manager)
    return {"outbound": encode("outbound", result)}


def routes(cluster: str) -> Resources:
    configuration = RouteConfiguration(name="all")
    host = configuration.virtual_hosts.add(name="all", domains=["*"])
    host.routes.add().match.prefix = "/"
    host.routes[0].route.cluster = cluster
    return {"all": encode("all", configuration)}


class Backend:
    """An HTTP server that answers everything with its name."""

    def __init__(self, name: str) -> None:
        self._answer = f"HTTP/1.1 200 OK\r\ncontent-length: {len(name)}\r\n\r\n{name}".encode()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def __aenter__(self) -> Backend:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self._answer)
                await writer.drain()
        writer.close()


class World:
    """An ADS server that can be stopped and started, an Envoy that follows it, and two backends."""

    def __init__(self, node: Node, first: Backend, second: Backend) -> None:
        self.node = node
        self.first = first
        self.second = second
        self.source = OneSnapshot(self.initial())
        self.log = Log()
        self.registry = CollectorRegistry()
        self.port = 0
        self.caller = httpx.AsyncClient(base_url=f"http://{node.outbound}", timeout=LIMIT)
        self.admin = httpx.AsyncClient()
        self.server: AdsServer | None = None
        self.pki = Pki()
        self.identity = server_identity(self.pki)
        self.secrets = Path()
        self._serving: AsyncExitStack = AsyncExitStack()

    def initial(self) -> Snapshot:
        """One cluster with one endpoint, made anew each time."""
        return snapshot(
            clusters=clusters("first"),
            endpoints=endpoints(first=self.first.port),
            listeners=listener(self.node.outbound.port),
            routes=routes("first"),
        )

    async def serve(self) -> None:
        """Start the ADS server, at the port it had."""
        self.log, self.registry = Log(), CollectorRegistry()
        server = AdsServer(
            self.source,
            observer=self.log,
            registry=self.registry,
            port=self.port,
            credentials=server_credentials(lambda: self.identity),
        )
        self.server = await self._serving.enter_async_context(server)
        self.port = server.port
        pushing = asyncio.create_task(server.run())
        self._serving.callback(pushing.cancel)

    async def stop_serving(self) -> None:
        """Stop the ADS server."""
        await self._serving.aclose()

    async def synced(self) -> None:
        """Wait until Envoy has taken over everything there is now."""
        async with asyncio.timeout(LIMIT):
            while ("synced", self.node.key, str(self.source.generation)) not in self.log.events:
                await self.log.news()

    def statuses(self) -> list[SyncStatus]:
        """Where the ADS server sees its sidecars."""
        assert self.server is not None
        return self.server.statuses()

    async def subscribed_to_all(self) -> None:
        """Wait until Envoy has come back with all its subscriptions, and all of them are in sync."""

        async def done() -> bool:
            return any(len(each.types) == 4 and each.in_sync for each in self.statuses())

        async with asyncio.timeout(LIMIT):
            await until(done)

    async def call(self) -> str:
        """Call through Envoy: the name of the backend, or what went wrong."""
        try:
            response = await self.caller.get("/")
        except httpx.TransportError as error:
            return repr(error)
        return response.text

    async def answers(self, name: str) -> None:
        """Wait until calls are answered by the backend `name`."""
        await holds(self.call, lambda answer: answer == name)

    async def endpoints(self) -> set[str]:
        """`cluster address` of every endpoint Envoy knows, as it tells itself."""
        response = await self.admin.get("http://envoy/clusters", params={"format": "json"})
        found = set()
        for cluster in response.json()["cluster_statuses"]:
            for host in cluster.get("host_statuses", []):
                found.add(f"{cluster['name']} {host['address']['socket_address']['port_value']}")
        return found

    def sent(self) -> float:
        """How many responses the ADS server has sent since it was started."""
        return sum(
            self.registry.get_sample_value("weft_xds_pushes_total", {"type": short}) or 0.0
            for short in ("cds", "eds", "lds", "rds")
        )


async def holds(ask: Callable[[], Awaitable[Any]], fits: Callable[[Any], bool]) -> None:
    """Wait until what `ask` returns fits."""
    last: Any = None

    async def condition() -> bool:
        nonlocal last
        last = await ask()
        return fits(last)

    try:
        async with asyncio.timeout(LIMIT):
            await until(condition)
    except TimeoutError:
        pytest.fail(f"it is still {last!r}")


@asynccontextmanager
async def envoy(world: World, directory: Path) -> AsyncIterator[Process]:
    """A real Envoy with the sidecars' own bootstrap."""
    world.secrets = directory
    write_secrets(directory, world.pki, DOOR)
    config = bootstrap(
        world.node,
        xds=[Address("127.0.0.1", world.port)],
        admin_socket=directory / "admin",
        max_connections=100,
    )
    ping_often(config)
    file = directory / "envoy.json"
    file.write_text(json.dumps(config))
    options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
    process = await asyncio.create_subprocess_exec(
        ENVOY, "-c", file, *options, stdout=DEVNULL, stderr=sys.stderr, cwd=directory
    )
    world.admin = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(directory / "admin")))
    try:
        yield process
    finally:
        process.kill()
        await process.wait()
        await world.admin.aclose()


def ping_often(config: dict[str, Any]) -> None:
    """Have Envoy ask every 0.4 s whether the server is there; it does so every 10 s otherwise."""
    cluster = next(each for each in config["static_resources"]["clusters"] if each["name"] == "xds")
    (options,) = cluster["typed_extension_protocol_options"].values()
    options["explicit_http_config"]["http2_protocol_options"]["connection_keepalive"]["interval"] = "0.4s"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    with TemporaryDirectory(prefix="wt-") as directory, reserve_port("127.0.0.1") as outbound:
        async with Backend("first") as first, Backend("second") as second:
            world = World(Node("c-1", outbound=Address("127.0.0.1", outbound.port)), first, second)
            await world.serve()
            async with envoy(world, Path(directory)), world.caller:
                await world.answers("first")
                await world.synced()
                yield world
            await world.stop_serving()


async def test_envoy_follows_a_change_of_endpoints(world: World) -> None:
    assert await world.endpoints() >= {f"first {world.first.port}"}
    before = world.sent()
    world.source.change(endpoints=endpoints(first=world.second.port))
    await world.synced()
    assert await world.call() == "second"
    known = await world.endpoints()
    assert f"first {world.second.port}" in known
    assert f"first {world.first.port}" not in known
    assert world.sent() == before + 1


async def test_a_changed_cluster_is_used_at_once_though_its_endpoints_have_not_changed(world: World) -> None:
    world.source.change(clusters=clusters("first", connect_timeout=2))
    await world.synced()
    assert await world.call() == "first"


async def test_calls_moved_to_a_new_cluster_find_it_ready_and_the_old_one_there_until_then(
    world: World,
) -> None:
    answers: list[str] = []
    calling = asyncio.create_task(call_on(world, answers))
    for name, other in [("second", "first"), ("first", "second")] * 5:
        world.source.change(
            clusters=clusters(name),
            endpoints=endpoints(**{name: getattr(world, name).port}),
            routes=routes(name),
        )
        await world.synced()
        await world.answers(name)
        assert not any(known.startswith(other) for known in await world.endpoints())
    calling.cancel()
    assert set(answers) == {"first", "second"}


async def call_on(world: World, answers: list[str]) -> None:
    while True:
        answers.append(await world.call())


async def test_a_rejected_listener_is_recorded_and_the_working_one_stays(world: World) -> None:
    world.source.change(listeners=listener(world.node.outbound.port, prefix=""))
    kind, node, type_url, reason, *names = await world.log.seen("rejected")
    assert (kind, node, type_url, names) == ("rejected", world.node.key, LISTENER, ["outbound"])
    assert "StatPrefix" in reason
    assert await world.call() == "first"
    [status] = world.statuses()
    rejection = status.types[LISTENER].rejection
    assert rejection is not None
    assert rejection.names == ("outbound",)
    world.source.change(endpoints=endpoints(first=world.second.port))
    await world.answers("second")
    assert world.log.count("rejected") == 1
    world.source.change(listeners=listener(world.node.outbound.port, prefix="repaired"))
    await world.synced()
    assert await world.call() == "second"


async def test_one_bad_route_configuration_or_cluster_does_not_hold_back_the_good_ones(world: World) -> None:
    bad = Cluster(name="bad", type=Cluster.EDS)
    world.source.change(
        clusters={**clusters("first", "second"), "bad": encode("bad", bad)},
        endpoints=endpoints(first=world.first.port, second=world.second.port),
        routes=routes("second"),
    )
    assert (await world.log.seen("rejected"))[-1] == "bad"
    await world.answers("second")


async def test_a_server_started_again_with_equal_content_sends_nothing(world: World) -> None:
    await world.stop_serving()
    world.source = OneSnapshot(world.initial())
    await world.serve()
    await world.subscribed_to_all()
    assert world.sent() == 0
    assert await world.call() == "first"


async def test_a_server_started_again_sends_what_changed_meanwhile(world: World) -> None:
    await world.stop_serving()
    world.source.change(endpoints=endpoints(first=world.second.port), clusters=clusters("first", "other"))
    await world.serve()
    await world.answers("second")


async def test_envoy_serves_on_without_a_server(world: World) -> None:
    await world.stop_serving()
    assert [await world.call() for _ in range(10)] == ["first"] * 10


async def test_an_idle_stream_stays_open_though_envoy_pings_on_it(world: World) -> None:
    with pytest.raises(TimeoutError):
        await world.log.seen("disconnected", within=3)
    assert world.log.count("connected") == 1


async def test_envoy_comes_back_with_its_new_certificate_when_that_of_its_stream_ends(world: World) -> None:
    write_identity(world.secrets, *world.pki.svid(DOOR, lifetime=time.time() - world.pki.now + 3))
    await world.stop_serving()
    await world.serve()
    await world.subscribed_to_all()
    write_identity(world.secrets, *world.pki.svid(DOOR))
    await world.log.seen("disconnected")
    await world.subscribed_to_all()
    assert world.log.count("connected") == 2


async def test_envoy_follows_the_server_to_another_root(world: World) -> None:
    heir = Pki()
    both = TrustBundle(heir.trust_domain, heir.bundle().roots + world.pki.bundle().roots)
    world.identity = replace(world.identity, roots=both.pem)
    write_trust(world.secrets, TrustBundles(both))
    world.identity = replace(server_identity(heir), roots=both.pem)
    write_identity(world.secrets, *heir.svid(DOOR))
    write_trust(world.secrets, heir.bundles())
    world.identity = server_identity(heir)
    world.source.change(endpoints=endpoints(first=world.second.port))
    await world.answers("second")
    assert world.log.count("connected") == 1, "an open stream goes on"
    await world.stop_serving()
    await world.serve()
    await world.subscribed_to_all()
