"""The ADS server: incremental xDS over gRPC, one aggregated stream for each sidecar."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import grpc
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from grpc import aio
from prometheus_client import CollectorRegistry

from weft.aio.ports import PortUnavailable
from weft.controlplane.xds.connection import Connection, Context
from weft.controlplane.xds.convergence import Convergence
from weft.controlplane.xds.metrics import XdsMetrics
from weft.controlplane.xds.peer import OnDenied, check_node, peer_address, peer_svid
from weft.controlplane.xds.session import Session
from weft.controlplane.xds.snapshot import SnapshotSource
from weft.controlplane.xds.status import Observer, SyncStatus
from weft.controlplane.xds.wire import node_of, parse_request
from weft.errors import Denied, InvalidRequest, Unauthenticated, Unavailable
from weft.identity.svid import Svid
from weft.model.node import Node
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN, SpiffeId

SERVICE = "envoy.service.discovery.v3.AggregatedDiscoveryService"
METHOD = "DeltaAggregatedResources"

QUIET = 0.02
"""Seconds without a further change after which changes are pushed."""

LONGEST_DELAY = 0.2
"""Seconds after which a change is pushed though others keep following."""

MAX_STREAMS = 40_000
"""Streams open at once, those of `services` included; a further one ends with RESOURCE_EXHAUSTED."""

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""A coming-back client lists all it holds: 20,000 names and versions fit."""

CLIENT_TIMEOUT = 30.0
"""Seconds a client may take to say who it is, and to read what it is sent."""

_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    # Else a second control plane could take the same port, and half of the sidecars.
    ("grpc.so_reuseport", 0),
    # A sidecar whose machine is gone sends no reset: ask.
    ("grpc.keepalive_time_ms", 15_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Sidecars ask in the same way, and a stream is often quiet: by default that counts as abuse.
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 250),
)


def _nobody(identity: str) -> bool:  # noqa: ARG001 - the same for all
    return False


def _unheard(who: str, node: Node | None, reason: str) -> None:
    """Leave a refusal unheard."""


class AdsServer:
    """Serves what a source has for each sidecar, and pushes what changes.

    Entering the context binds the port; `run` pushes changes; leaving the context ends all streams with
    UNAVAILABLE, upon which sidecars go on with what they have and try to connect anew.
    """

    def __init__(
        self,
        source: SnapshotSource,
        *,
        observer: Observer,
        registry: CollectorRegistry,
        host: str = "127.0.0.1",
        port: int = 0,
        quiet: float = QUIET,
        longest_delay: float = LONGEST_DELAY,
        client_timeout: float = CLIENT_TIMEOUT,
        credentials: grpc.ServerCredentials | None = None,
        trust_domain: str = DEFAULT_TRUST_DOMAIN,
        revoked: Callable[[str], bool] = _nobody,
        on_denied: OnDenied = _unheard,
        services: Sequence[grpc.GenericRpcHandler[bytes, bytes]] = (),
    ) -> None:
        """`port` 0 lets the system choose. `quiet` and `longest_delay`, in seconds, tell when to push:
        when nothing changed for `quiet`, at the latest `longest_delay` after the first change. A stream
        whose client is silent at first, or does not read, ends after `client_timeout` seconds.

        With `credentials` (see `server_credentials`) every stream is bound to the identity of its peer: it
        must be of `trust_domain`, not `revoked` (which is asked by SPIFFE ID), and that of the node it asks
        for; `on_denied` hears of those that are not. Without them anybody is served: for tests of the
        protocol alone.

        `services` are served at the same port; they make sure of their peers themselves.

        Raises ValueError if another server's metrics are in `registry` already.
        """
        self._source = source
        self._metrics = XdsMetrics(registry)
        self._observer = Convergence(observer, self._metrics.convergence_seconds.observe, time.monotonic)
        self._host = host
        self._port = port
        self._quiet = quiet
        self._longest_delay = longest_delay
        self._client_timeout = client_timeout
        self._credentials = credentials
        self._trust_domain = trust_domain
        self._revoked = revoked
        self._on_denied = on_denied
        self._services = services
        self._connections: dict[Connection, str] = {}
        self._server: aio.Server | None = None

    @property
    def port(self) -> int:
        """The port it listens at, once the context is entered."""
        return self._port

    def statuses(self) -> list[SyncStatus]:
        """Where each connected sidecar stands."""
        return [connection.status() for connection in self._connections]

    @property
    def settled(self) -> bool:
        """Whether every connected sidecar has the newest that the source has, or refuses some of it."""
        generation = self._source.generation
        return all(each.has(generation) for each in self._connections)

    async def run(self) -> None:
        """Push what changes, for ever."""
        generation = self._source.generation
        while True:
            generation = await self._source.changed_since(generation)
            changed_at = time.monotonic()
            generation = await self._until_quiet(generation)
            self._observer.changed(generation, changed_at, [each.node for each in self._connections])
            for connection in self._connections:
                connection.push(changed_at)

    def drop(self, identity: str) -> None:
        """End the streams of the SPIFFE ID `identity`, which has been revoked."""
        for connection, holder in self._connections.items():
            if holder == identity:
                connection.end(_revocation(identity))

    async def __aenter__(self) -> Self:
        """Listen. Raises PortUnavailable if the port cannot be had."""
        self._server = aio.server(options=_OPTIONS, maximum_concurrent_rpcs=MAX_STREAMS)
        self._server.add_generic_rpc_handlers(
            [
                grpc.method_handlers_generic_handler(
                    SERVICE, {METHOD: grpc.stream_stream_rpc_method_handler(self._handle)}
                ),
                *self._services,
            ]
        )
        host = f"[{self._host}]" if ":" in self._host else self._host
        try:
            self._port = self._bind(self._server, f"{host}:{self._port}")
        except RuntimeError as error:
            raise PortUnavailable(
                f"the xDS server cannot listen at {host}:{self._port}: stop the program that listens there, "
                f"or choose another port"
            ) from error
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._connections:
            connection.end(Unavailable("this control plane is stopping"))
        if self._server is not None:
            await self._server.stop(grace=1.0)

    async def _until_quiet(self, generation: int) -> int:
        """Wait out a burst of changes; return the generation it ended with."""
        deadline = time.monotonic() + self._longest_delay
        while (left := deadline - time.monotonic()) > 0:
            try:
                async with asyncio.timeout(min(self._quiet, left)):
                    generation = await self._source.changed_since(generation)
            except TimeoutError:
                break
        return generation

    def _bind(self, server: aio.Server, address: str) -> int:
        if self._credentials is None:
            return server.add_insecure_port(address)
        return server.add_secure_port(address, self._credentials)

    async def _handle(self, requests: AsyncIterator[bytes], context: Context) -> None:
        try:
            await self._serve(requests, context)
        except InvalidRequest as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, error.detail)
        except Unauthenticated as error:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, error.detail)
        except Denied as error:
            await context.abort(grpc.StatusCode.PERMISSION_DENIED, error.detail)
        except Unavailable as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, error.detail)
        except TimeoutError:
            await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "the client does not keep up")

    async def _serve(self, requests: AsyncIterator[bytes], context: Context) -> None:
        peer = self._peer(context)
        first = await self._first_request(requests)
        if first is None:
            return
        node = node_of(first)
        if peer is not None:
            self._admit(peer.id, node)
        session = Session(
            node,
            self._source.snapshot(node),
            self._source.generation,
            observer=self._observer,
            metrics=self._metrics,
        )
        connection = Connection(requests, context, session, self._source, write_timeout=self._client_timeout)
        with self._connected(node, connection, peer, peer_address(context.peer())):
            await connection.run(first)

    def _peer(self, context: Context) -> Svid | None:
        """Who is there; None if this server does not ask. Raises Unauthenticated."""
        if self._credentials is None:
            return None
        try:
            return peer_svid(context, self._trust_domain, now=time.time())
        except Unauthenticated as error:
            self._on_denied(f"unauthenticated {context.peer()}", None, error.detail)
            raise

    def _admit(self, identity: SpiffeId, node: Node) -> None:
        """Raise Denied unless `identity` may have what `node` is to know."""
        try:
            if self._revoked(str(identity)):
                raise _revocation(str(identity))
            check_node(identity, node)
        except Denied as error:
            self._on_denied(str(identity), node, error.detail)
            raise

    async def _first_request(self, requests: AsyncIterator[bytes]) -> DeltaDiscoveryRequest | None:
        """Who is there, and its first wish; None if it has left already."""
        async with asyncio.timeout(self._client_timeout):
            data = await anext(requests, None)
        return None if data is None else parse_request(data)

    @contextmanager
    def _connected(
        self, node: Node, connection: Connection, peer: Svid | None, address: str
    ) -> Iterator[None]:
        self._connections[connection] = "" if peer is None else str(peer.id)
        self._metrics.streams.inc()
        self._observer.connected(node, address)
        try:
            with _expiring(connection, peer):
                yield
        finally:
            del self._connections[connection]
            self._metrics.streams.dec()
            self._observer.disconnected(node)


@contextmanager
def _expiring(connection: Connection, peer: Svid | None) -> Iterator[None]:
    """End the stream when the certificate ends that it was opened with; a sidecar has a new one by then."""
    if peer is None:
        yield
        return
    error = Unauthenticated(f"the certificate of {peer.id} has expired: connect with a new one")
    left = max(0.0, peer.not_after - time.time())
    timer = asyncio.get_running_loop().call_later(left, connection.end, error)
    try:
        yield
    finally:
        timer.cancel()


def _revocation(identity: str) -> Denied:
    return Denied(f"{identity} has been revoked: its sidecar must enrol anew, under another id")
