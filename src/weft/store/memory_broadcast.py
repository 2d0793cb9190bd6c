"""Broadcasts in memory: the same contract as in NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from weft.errors import Unavailable
from weft.store.broadcast_buffer import BroadcastBuffer, check_message


class MemoryBroadcast:
    """Messages of one name, among those who share `listeners`."""

    def __init__(self, name: str, listeners: set[BroadcastBuffer], reachable: asyncio.Event) -> None:
        """`reachable` is set unless the store was interrupted."""
        self._name = name
        self._listeners = listeners
        self._reachable = reachable

    async def send(self, key: str, data: bytes) -> bool:
        """Send to all who listen."""
        check_message(self._name, key, data)
        if not self._reachable.is_set():
            return False
        for each in self._listeners:
            each.add(key, data)
        return True

    async def settled(self, timeout: float) -> bool:  # noqa: ARG002 -- it has already
        """Whether what was sent has left."""
        return self._reachable.is_set()

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[BroadcastBuffer]:
        """Hear what is sent from when the context is entered."""
        if not self._reachable.is_set():
            raise Unavailable(f"broadcast {self._name!r}: the store in memory was interrupted; resume it")
        buffer = BroadcastBuffer()
        self._listeners.add(buffer)
        try:
            yield buffer
        finally:
            self._listeners.discard(buffer)
