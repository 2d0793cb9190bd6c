"""What the tests of the ADS server share: resources, a source of them, and one that watches sidecars."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from envoy.service.discovery.v3.discovery_pb2 import Resource

from weft.aio.generation import Generation
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

    def connected(self, node: Node) -> None:
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
