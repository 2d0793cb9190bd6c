"""Signals in memory: the same contract as in NATS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from weft.errors import Unavailable
from weft.store.keys import check_key, covers
from weft.store.signal_buffer import SignalBuffer


class SignalListeners:
    """Who listens to the signals of one name; shared by all who open it."""

    def __init__(self) -> None:
        self.by_buffer: dict[SignalBuffer, str] = {}

    def miss(self) -> None:
        """Tell all that they may have missed something."""
        for each in self.by_buffer:
            each.miss()


class MemorySignals:
    """Signals of one name, among those who share `listeners`."""

    def __init__(self, name: str, listeners: SignalListeners, reachable: asyncio.Event) -> None:
        """`reachable` is set unless the store was interrupted."""
        self._name = name
        self._listeners = listeners
        self._reachable = reachable

    async def send(self, key: str) -> None:
        """Tell that something happened to `key`."""
        check_key(self._name, key)
        if self._reachable.is_set():
            for each, prefix in self._listeners.by_buffer.items():
                if covers(prefix, key):
                    each.add(key)

    @asynccontextmanager
    async def listen(self, prefix: str) -> AsyncIterator[SignalBuffer]:
        """Hear of the keys that are `prefix` or begin with `prefix.`."""
        check_key(self._name, prefix)
        if not self._reachable.is_set():
            raise Unavailable(f"signals {self._name!r}: the store in memory was interrupted; resume it")
        buffer = SignalBuffer()
        self._listeners.by_buffer[buffer] = prefix
        try:
            yield buffer
        finally:
            del self._listeners.by_buffer[buffer]
