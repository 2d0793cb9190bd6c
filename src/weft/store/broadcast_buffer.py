"""The messages of a broadcast that a listener has not asked for yet."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from weft.errors import InvalidRequest
from weft.store.broadcast import MAX_BROADCAST_BYTES, Heard
from weft.store.keys import check_key

MAX_WAITING_BYTES: Final = 16 * 1024 * 1024
"""Beyond so much what comes is dropped, until the listener has asked for some."""

_OVERHEAD = 128  # bytes that a message costs beside its content


class BroadcastBuffer:
    """Messages in the order in which they came."""

    def __init__(self) -> None:
        self._waiting: deque[Heard] = deque()
        self._bytes = 0
        self._news = asyncio.Event()
        self.dropped = 0

    def add(self, key: str, data: bytes) -> None:
        """A message came."""
        size = len(data) + _OVERHEAD
        if self._bytes + size > MAX_WAITING_BYTES:
            self.dropped += 1
            return
        self._bytes += size
        self._waiting.append(Heard(key, data))
        self._news.set()

    async def next(self) -> Heard:
        """The next message."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        return self._taken()

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._waiting

    def wake(self) -> None:
        """Have `news` return though nothing came."""
        self._news.set()

    async def news(self) -> None:
        """Wait until something may have come."""
        if not self._waiting:
            self._news.clear()
            await self._news.wait()

    def _taken(self) -> Heard:
        heard = self._waiting.popleft()
        self._bytes -= len(heard.data) + _OVERHEAD
        return heard


def check_message(name: str, key: str, data: bytes) -> None:
    """Raise InvalidRequest unless `data` may be sent under `key`."""
    check_key(name, key)
    if len(data) > MAX_BROADCAST_BYTES:
        raise InvalidRequest(
            f"broadcast {name!r}: a message has {len(data)} bytes; the limit is {MAX_BROADCAST_BYTES}"
        )
