"""The two halves of one open stream: reading what a sidecar says, writing what it is to know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest
from grpc import aio

from weft.controlplane.xds.session import Session
from weft.controlplane.xds.snapshot import SnapshotSource
from weft.controlplane.xds.status import SyncStatus
from weft.controlplane.xds.wire import parse_request, request_of
from weft.errors import MeshError
from weft.model.node import Node

Context = aio.ServicerContext[bytes, bytes]


class Connection:
    """One sidecar's open stream."""

    def __init__(
        self,
        requests: AsyncIterator[bytes],
        context: Context,
        session: Session,
        source: SnapshotSource,
        *,
        write_timeout: float,
    ) -> None:
        """`write_timeout`: seconds the sidecar may leave a response unread."""
        self._write_timeout = write_timeout
        self._requests = requests
        self._context = context
        self._session = session
        self._source = source
        self._due = asyncio.Event()
        self._changed_at: float | None = None
        self._ending: MeshError | None = None

    @property
    def node(self) -> Node:
        """Who is there."""
        return self._session.node

    def status(self) -> SyncStatus:
        """Where the sidecar stands."""
        return self._session.status()

    def has(self, generation: int) -> bool:
        """Whether the sidecar has taken over that generation, or refuses some of it."""
        return self._session.has(generation)

    def push(self, changed_at: float) -> None:
        """Have the sidecar told of what changed at `changed_at`, in seconds of the monotonic clock."""
        if self._changed_at is None:
            self._changed_at = changed_at
        self._due.set()

    def end(self, error: MeshError) -> None:
        """End the stream: `run` raises `error`, or the one given first."""
        self._ending = self._ending or error
        self._due.set()

    async def run(self, first: DeltaDiscoveryRequest) -> None:
        """Serve the sidecar, whose first request was `first`, until it leaves.

        Raises InvalidRequest if it says what makes no sense, TimeoutError if it does not read what it is
        sent, and what `end` is given.
        """
        self._session.receive(request_of(first))
        self._due.set()
        await _until_either_ends(self._read(), self._write())

    async def _read(self) -> None:
        async for data in self._requests:
            self._session.receive(request_of(parse_request(data)))
            self._due.set()

    async def _write(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            if self._ending is not None:
                raise self._ending
            self._take_over_change()
            for data in self._session.responses():
                async with asyncio.timeout(self._write_timeout):
                    await self._context.write(data)

    def _take_over_change(self) -> None:
        if self._changed_at is not None:
            snapshot = self._source.snapshot(self._session.node)
            self._session.change(snapshot, self._source.generation, self._changed_at)
            self._changed_at = None


async def _until_either_ends(*halves: Coroutine[Any, Any, None]) -> None:
    tasks = [asyncio.create_task(half) for half in halves]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
