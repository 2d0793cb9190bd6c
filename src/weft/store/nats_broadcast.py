"""Broadcasts as plain messages of NATS, which nothing keeps.

Those among replicas of the control plane stay in its account, since what they tell is for nobody else. Those
`of_members` are sent in the members' account, below what it exports to the control plane, which listens.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.msg import Msg

from weft.aio.backoff import backoff
from weft.errors import Unavailable
from weft.store.broadcast import Heard
from weft.store.broadcast_buffer import BroadcastBuffer, check_message
from weft.store.nats_accounts import BROADCASTS, MEMBER_SIGNALS
from weft.store.nats_client import FAILURES
from weft.store.nats_connection import NatsConnection
from weft.store.nats_subscription import NatsSubscription

_MAX_UNSENT_BYTES = 1024 * 1024
"""Beyond so much that waits to be written messages are dropped: the same connection renews leases."""


class NatsBroadcast:
    """Messages of one name."""

    def __init__(self, connection: NatsConnection, name: str, *, of_members: bool) -> None:
        self._connection = connection
        self._name = name
        self._root = f"{MEMBER_SIGNALS if of_members else BROADCASTS}.{name}"

    async def send(self, key: str, data: bytes) -> bool:
        """Send to all who listen."""
        check_message(self._name, key, data)
        client = self._connection.sender
        if client is None or client.pending_data_size + len(data) > _MAX_UNSENT_BYTES:
            return False
        try:
            await client.publish(f"{self._root}.{key}", data)
        except (nats.errors.Error, OSError):
            return False
        return True

    async def settled(self, timeout: float) -> bool:
        """Wait until all that was sent has left; False: it may be lost."""
        client = self._connection.sender
        if client is None:
            return False
        try:
            await client.flush(max(1, math.ceil(timeout)))
        except FAILURES:
            return False
        return True

    @asynccontextmanager
    async def listen(self) -> AsyncIterator[NatsBroadcastListener]:
        """Hear what is sent from when the context is entered."""
        listener = NatsBroadcastListener(self._connection, self._name, self._root)
        with self._connection.on_loss(listener.lose):
            try:
                await listener.begin()
                yield listener
            finally:
                await listener.end()


class NatsBroadcastListener:
    """Hears messages; subscribes anew, when it is asked for the next one, after a lost connection."""

    def __init__(self, connection: NatsConnection, name: str, root: str) -> None:
        self._root = root
        self._heard = BroadcastBuffer()
        self._subscription = NatsSubscription(
            connection, f"listen to broadcasts of {name!r}", (f"{root}.>",), self._receive
        )

    @property
    def dropped(self) -> int:
        """Messages that came and were dropped."""
        return self._heard.dropped

    async def begin(self) -> None:
        """Subscribe. Raises Unavailable or Denied."""
        await self._subscription.begin()

    async def end(self) -> None:
        """Hear no more."""
        await self._subscription.end()

    def lose(self) -> None:
        """The connection is lost."""
        self._subscription.lost = True
        self._heard.wake()

    async def next(self) -> Heard:
        """The next message."""
        while self._heard.empty:
            if self._subscription.lost:
                await self._begin_again()
            await self._heard.news()
        return await self._heard.next()

    async def _begin_again(self) -> None:
        for pause in backoff(longest=1.0):
            with suppress(Unavailable):
                await self.begin()
                return
            await asyncio.sleep(pause)

    async def _receive(self, message: Msg) -> None:
        self._heard.add(message.subject.removeprefix(f"{self._root}."), message.data)
