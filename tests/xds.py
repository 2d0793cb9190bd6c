"""What the tests of the ADS server share: resources, a source of them, and one that watches sidecars."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource
from grpc import aio
from prometheus_client import CollectorRegistry

from tests.pki import Pki
from weft.aio.generation import Generation
from weft.controlplane.xds.credentials import ServerIdentity
from weft.controlplane.xds.server import METHOD, SERVICE, AdsServer
from weft.controlplane.xds.snapshot import EncodedResource, Snapshot
from weft.model.node import Address, Node

Resources = dict[str, EncodedResource]

NODE = Node("c-1", outbound=Address("127.0.0.1", 20001))


def bare(**versions: str) -> Resources:
    """Resources without content: name and version only."""
    return {
        name: EncodedResource(name, version, Resource(name=name, version=version).SerializeToString())
        for name, version in versions.items()
    }


def snapshot(
    *,
    clusters: Mapping[str, EncodedResource] | None = None,
    endpoints: Mapping[str, EncodedResource] | None = None,
    listeners: Mapping[str, EncodedResource] | None = None,
    routes: Mapping[str, EncodedResource] | None = None,
) -> Snapshot:
    """A snapshot with only what a test is about."""
    return Snapshot(clusters or {}, endpoints or {}, listeners or {}, routes or {})


class OneSnapshot:
    """A SnapshotSource that has the same for every sidecar."""

    def __init__(self, now: Snapshot) -> None:
        self._now = now
        self._generation = Generation()
        self._generation.advance()

    @property
    def generation(self) -> int:
        return self._generation.number

    async def changed_since(self, generation: int) -> int:
        return await self._generation.later_than(generation)

    def snapshot(self, node: Node) -> Snapshot:  # noqa: ARG002 - the same for all
        return self._now

    def change(self, **mappings: Mapping[str, EncodedResource]) -> None:
        """Replace the mappings given; the others stay the very same."""
        now = {name: getattr(self._now, name) for name in ("clusters", "endpoints", "listeners", "routes")}
        self._now = Snapshot(**{**now, **mappings})
        self._generation.advance()


class Log:
    """An Observer that remembers what it was told, and can be waited on."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self._waker = asyncio.Event()

    def connected(self, node: Node, peer: str) -> None:  # noqa: ARG002 -- the observer's interface
        self._note("connected", node.key)

    def synced(self, node: Node, generation: int) -> None:
        self._note("synced", node.key, str(generation))

    def rejected(self, node: Node, type_url: str, reason: str, names: tuple[str, ...]) -> None:
        self._note("rejected", node.key, type_url, reason, *names)

    def disconnected(self, node: Node) -> None:
        self._note("disconnected", node.key)

    def count(self, kind: str) -> int:
        """How many events of one kind there were."""
        return sum(event[0] == kind for event in self.events)

    async def seen(self, kind: str, times: int = 1, *, within: float = 10.0) -> tuple[str, ...]:
        """Wait until there were `times` events of a kind; return the last of them."""
        async with asyncio.timeout(within):
            while self.count(kind) < times:
                await self.news()
        return [event for event in self.events if event[0] == kind][-1]

    async def news(self) -> None:
        """Wait for the next event."""
        self._waker.clear()
        await self._waker.wait()

    def _note(self, *event: str) -> None:
        self.events.append(event)
        self._waker.set()


class AdsMesh:
    """A running ADS server, what it serves and what it tells."""

    def __init__(self, source: OneSnapshot | None = None, **settings: Any) -> None:
        self.source = source or OneSnapshot(snapshot(clusters=bare(a="1"), endpoints=bare(a="1", b="1")))
        self.log = Log()
        self.registry = CollectorRegistry()
        self.server = AdsServer(self.source, observer=self.log, registry=self.registry, **settings)

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(name, labels)
        assert value is not None
        return value


class AdsClient:
    """One open stream."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, type_url: str, node: Node | None = None, **fields: Any) -> None:
        message = DeltaDiscoveryRequest(type_url=type_url, **fields)
        if node is not None:
            message.node.id = node.key
            message.node.metadata.update({"weft": node.metadata()})
        await self.call.write(message.SerializeToString())

    async def hear(self) -> DeltaDiscoveryResponse:
        async with asyncio.timeout(60):
            return DeltaDiscoveryResponse.FromString(await self.call.read())

    async def ack(self, response: DeltaDiscoveryResponse) -> None:
        await self.say(response.type_url, response_nonce=response.nonce)

    async def nack(self, response: DeltaDiscoveryResponse, reason: str) -> None:
        request = DeltaDiscoveryRequest(type_url=response.type_url, response_nonce=response.nonce)
        request.error_detail.message = reason
        await self.call.write(request.SerializeToString())

    async def end(self) -> tuple[grpc.StatusCode, str]:
        """Wait until the server ends the stream; how it did."""
        async with asyncio.timeout(60):
            with suppress(aio.AioRpcError):
                while await self.call.read() is not aio.EOF:  # type: ignore[attr-defined]
                    pass
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def running(mesh: AdsMesh) -> AsyncIterator[AdsMesh]:
    """`mesh`, serving and pushing."""
    async with mesh.server:
        pushing = asyncio.create_task(mesh.server.run())
        try:
            yield mesh
        finally:
            pushing.cancel()
            with suppress(asyncio.CancelledError):
                await pushing


@asynccontextmanager
async def stream(
    mesh: AdsMesh, credentials: grpc.ChannelCredentials | None = None
) -> AsyncIterator[AdsClient]:
    """A connection of its own, with an open stream; over TLS where there are `credentials`."""
    address = f"127.0.0.1:{mesh.server.port}"
    channel = aio.secure_channel(address, credentials) if credentials else aio.insecure_channel(address)
    async with channel:
        method: Any = channel.stream_stream
        call = method(f"/{SERVICE}/{METHOD}")()
        try:
            yield AdsClient(call)
        finally:
            call.cancel()


def server_identity(pki: Pki) -> ServerIdentity:
    """What a control plane of that trust domain shows, and whom it believes."""
    chain, key = pki.svid(f"spiffe://{pki.trust_domain}/control/c-1")
    return ServerIdentity(chain, key, pki.bundle().pem)
