"""Taking turns at writing resources, among all replicas of the control plane.

The store has no transactions over several keys. Two manifests that are each valid can contradict each other,
so between checking one against what is stored and having written it, nobody else may write.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from weft.errors import Conflict, Unavailable
from weft.store.bucket import Bucket, Put, Snapshot, Store

BUCKET = "turns"
KEY = "resources"

TURN_TTL = 5.0
"""Seconds after which a turn ends by itself, since whoever had it was killed."""

TURN_LIMIT = 4.0
"""Seconds in which a turn must be used: it must not lapse while a write is on its way."""

PATIENCE = 8.0
"""Seconds to wait for a turn: one whole turn of somebody who was killed, and some of others."""


class TextCodec:
    """Text as UTF-8."""

    def encode(self, value: str) -> bytes:
        """Return the bytes of `value`."""
        return value.encode()

    def decode(self, data: bytes) -> str:
        """Return the text in `data`. Raises ValueError if it is none."""
        return data.decode()


class Turn:
    """The right to write, which one at a time has. Open it with `open`."""

    def __init__(self, bucket: Bucket[str]) -> None:
        self._bucket = bucket

    @classmethod
    async def open(cls, store: Store) -> Turn:
        """Open the turns in `store`."""
        return cls(await store.bucket(BUCKET, TextCodec()))

    @asynccontextmanager
    async def taken(self) -> AsyncIterator[float]:
        """Within the context nobody else has the turn, until the time of the event loop that it yields.

        Raises Conflict if others have it for longer than PATIENCE, and Unavailable.
        """
        try:
            async with asyncio.timeout(PATIENCE):
                revision, deadline = await self._take()
        except TimeoutError:
            raise Conflict(
                f"others have been writing resources for {PATIENCE:g} s; nothing was changed, try again"
            ) from None
        try:
            yield deadline
        finally:
            # One that lapsed, or cannot be given back, ends by itself.
            with suppress(Conflict, Unavailable):
                await self._bucket.delete(KEY, revision=revision)

    async def _take(self) -> tuple[int, float]:
        """The revision and the deadline of a turn, once it is free."""
        loop = asyncio.get_running_loop()
        async with self._bucket.watch(KEY) as changes:
            async for change in changes:
                if isinstance(change, Put) or (isinstance(change, Snapshot) and change.entries):
                    continue
                # Counted from before the write: the store's own count begins later.
                deadline = loop.time() + TURN_LIMIT
                with suppress(Conflict):
                    return await self._bucket.create(KEY, "taken", ttl=TURN_TTL), deadline
        raise Unavailable("the store ended the watch for a turn at writing resources; try again")
