"""How long until the last of many sidecars knows of a change: `python -m benchmarks.xds_push`.

Budget: 1 s at the 99th percentile, with 1,000 sidecars and 10,000 endpoints. The sidecars are gRPC clients
with a connection each, in a process of their own; they acknowledge as Envoy does. On a machine with two
cores the figure includes their work, which in a mesh is spread over as many machines.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest, DeltaDiscoveryResponse
from grpc import aio
from prometheus_client import CollectorRegistry

from weft.controlplane.xds.server import METHOD, SERVICE, AdsServer
from weft.controlplane.xds.snapshot import ENDPOINTS, EncodedResource, Snapshot, encode
from weft.model.node import Address, Node

BUDGET = 1.0
"""Seconds, 99th percentile."""

TIMEOUT = 120.0
"""Seconds after which the benchmark gives up waiting for anything."""

CONNECTING_AT_ONCE = 50
"""Clients that connect at the same time: a thousand at once measure the listen queue."""


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured; times in seconds."""

    streams: int
    endpoints: int
    clusters: int
    changes: int
    p50: float
    p99: float
    worst: float
    server_cpu: float
    """Of the server, for each change."""
    change_bytes: int
    """Sent to all sidecars together, for each change."""
    connect_seconds: float
    """Until all sidecars, started together, knew everything."""
    connect_bytes: int
    cores: int

    def __str__(self) -> str:
        verdict = "within" if self.p99 <= BUDGET else "OVER"
        return "\n".join(
            (
                f"xDS push, {self.streams} sidecars, {self.endpoints} endpoints in {self.clusters} clusters, "
                f"{self.changes} changes, {self.cores} cores",
                f"  change to last sidecar   p50 {self.p50 * 1000:.0f} ms   p99 {self.p99 * 1000:.0f} ms   "
                f"worst {self.worst * 1000:.0f} ms   ({verdict} the budget of {BUDGET * 1000:.0f} ms)",
                f"  server CPU per change    {self.server_cpu * 1000:.0f} ms",
                f"  bytes per change         {self.change_bytes:,} to all sidecars together",
                f"  all connect at once      {self.connect_seconds:.1f} s, {self.connect_bytes:,} bytes",
            )
        )


class Source:
    """A SnapshotSource in which one cluster's endpoints change at a time."""

    def __init__(self, endpoints: int, clusters: int) -> None:
        self._per_cluster = endpoints // clusters
        self._endpoints = {name: self._assignment(name, 0) for name in map(str, range(clusters))}
        self._generation = 1
        self._changed = asyncio.Event()

    @property
    def generation(self) -> int:
        return self._generation

    @property
    def names(self) -> list[str]:
        return list(self._endpoints)

    @property
    def size(self) -> int:
        """Bytes of all resources."""
        return sum(len(each.wire) for each in self._endpoints.values())

    async def changed_since(self, generation: int) -> int:
        while self._generation == generation:
            await self._changed.wait()
        return self._generation

    def snapshot(self, node: Node) -> Snapshot:  # noqa: ARG002 - the same for all
        return Snapshot({}, self._endpoints, {}, {})

    def change(self, number: int) -> EncodedResource:
        """Change the endpoints of one cluster; return what they are now."""
        name = str(number % len(self._endpoints))
        changed = self._assignment(name, number)
        self._endpoints = {**self._endpoints, name: changed}
        self._generation += 1
        self._changed.set()
        self._changed = asyncio.Event()
        return changed

    def _assignment(self, name: str, number: int) -> EncodedResource:
        assignment = ClusterLoadAssignment(cluster_name=name)
        locality = assignment.endpoints.add()
        for index in range(self._per_cluster):
            address = locality.lb_endpoints.add().endpoint.address.socket_address
            address.address = f"10.{number % 250}.{index // 250}.{index % 250}"
            address.port_value = 8080
        return encode(name, assignment)


class SyncCount:
    """An Observer that knows how many sidecars have accepted a generation."""

    def __init__(self) -> None:
        self._synced: Counter[int] = Counter()
        self._news = asyncio.Event()

    def connected(self, node: Node, peer: str) -> None:
        """Of no interest here."""

    def disconnected(self, node: Node) -> None:
        """Of no interest here."""

    def synced(self, node: Node, generation: int) -> None:  # noqa: ARG002 - which one is the same
        self._synced[generation] += 1
        self._news.set()

    def rejected(self, node: Node, type_url: str, reason: str, names: tuple[str, ...]) -> None:
        raise AssertionError(f"{node.key} rejected {type_url} {names}: {reason}")

    async def reached(self, generation: int, sidecars: int) -> None:
        """Wait until `sidecars` of them have accepted `generation`."""
        async with asyncio.timeout(TIMEOUT):
            while self._synced[generation] < sidecars:
                self._news.clear()
                await self._news.wait()


async def measure(
    streams: int = 1000, endpoints: int = 10_000, clusters: int = 100, changes: int = 30
) -> Result:
    """Connect `streams` sidecars, make `changes`, and see when the last sidecar has each of them."""
    _raise_file_limit()
    source, synced = Source(endpoints, clusters), SyncCount()
    async with AdsServer(source, observer=synced, registry=CollectorRegistry()) as server:
        pushing = asyncio.create_task(server.run())
        began = time.monotonic()
        async with _clients(server.port, streams, source.names) as clients:
            await synced.reached(source.generation, streams)
            connect_seconds = time.monotonic() - began
            delays, cpu, size = [], [], 0
            for number in range(1, changes + 1):
                cpu_before, changed_at = time.process_time(), time.monotonic()
                changed = source.change(number)
                delays.append(await _last_arrival(clients, changed.version) - changed_at)
                await synced.reached(source.generation, streams)
                cpu.append(time.process_time() - cpu_before)
                size += len(changed.wire) * streams
        pushing.cancel()
    return Result(
        streams=streams,
        endpoints=endpoints,
        clusters=clusters,
        changes=changes,
        p50=statistics.median(delays),
        p99=statistics.quantiles(delays, n=100, method="inclusive")[98],
        worst=max(delays),
        server_cpu=statistics.mean(cpu),
        change_bytes=size // changes,
        connect_seconds=connect_seconds,
        connect_bytes=source.size * streams,
        cores=os.cpu_count() or 1,
    )


@asynccontextmanager
async def _clients(port: int, streams: int, names: list[str]) -> AsyncIterator[Process]:
    arguments = json.dumps({"port": port, "streams": streams, "names": names})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmarks.xds_push", "--be-the-clients", arguments, stdout=PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


async def _last_arrival(clients: Process, version: str) -> float:
    """When the last client got `version`, in seconds of the monotonic clock, which all processes share."""
    assert clients.stdout is not None
    async with asyncio.timeout(TIMEOUT):
        while line := await clients.stdout.readline():
            arrival: Mapping[str, Any] = json.loads(line)
            if arrival["version"] == version:
                return float(arrival["at"])
    raise RuntimeError("the clients have ended")


async def _be_the_clients(port: int, streams: int, names: list[str]) -> None:
    """Follow the server as `streams` sidecars; print when the last of them gets a version."""
    _raise_file_limit()
    arrivals: Counter[str] = Counter()
    connecting = asyncio.Semaphore(CONNECTING_AT_ONCE)
    async with asyncio.TaskGroup() as sidecars:
        for number in range(streams):
            sidecars.create_task(_sidecar(port, number, names, arrivals, streams, connecting))


async def _sidecar(
    port: int,
    number: int,
    names: list[str],
    arrivals: Counter[str],
    streams: int,
    connecting: asyncio.Semaphore,
) -> None:
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    async with aio.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        open_stream: Any = channel.stream_stream
        call = open_stream(f"/{SERVICE}/{METHOD}")()
        async with connecting:
            await call.write(_introduction(number, names))
            await call.write(_ack(DeltaDiscoveryResponse.FromString(await call.read())))
        while True:
            response = DeltaDiscoveryResponse.FromString(await call.read())
            version = response.resources[0].version
            arrivals[version] += 1
            if arrivals[version] == streams:
                print(json.dumps({"version": version, "at": time.monotonic()}), flush=True)
            await call.write(_ack(response))


def _introduction(number: int, names: list[str]) -> bytes:
    node = Node(f"c-{number}", outbound=Address("127.0.0.1", 20001))
    request = DeltaDiscoveryRequest(type_url=ENDPOINTS, resource_names_subscribe=names)
    request.node.id = node.key
    request.node.metadata.update({"weft": node.metadata()})
    return bytes(request.SerializeToString())


def _ack(response: DeltaDiscoveryResponse) -> bytes:
    request = DeltaDiscoveryRequest(type_url=ENDPOINTS, response_nonce=response.nonce)
    return bytes(request.SerializeToString())


def _raise_file_limit() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--endpoints", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--changes", type=int, default=30)
    parser.add_argument("--be-the-clients", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be_the_clients:
        asyncio.run(_be_the_clients(**json.loads(arguments.be_the_clients)))
        return
    sizes = (arguments.streams, arguments.endpoints, arguments.clusters, arguments.changes)
    print(asyncio.run(measure(*sizes)))


if __name__ == "__main__":
    _main()
