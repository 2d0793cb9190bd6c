"""Signals as plain messages of NATS, which nothing keeps.

Members and the control plane are in two accounts, each of which exports what it says itself to the other: so
the subject has the account in it, and everybody listens to both.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import nats.errors
from nats.aio.msg import Msg

from weft.errors import Denied, MeshError
from weft.store.keys import check_key
from weft.store.nats_accounts import CONTROL_SIGNALS, MEMBER_SIGNALS, SIGNALS
from weft.store.nats_connection import NatsConnection
from weft.store.nats_subscription import NatsSubscription
from weft.store.signal_buffer import SignalBuffer

_MAX_UNSENT_BYTES = 256 * 1024
"""Beyond so much that waits to be written signals are dropped."""


class NatsSignals:
    """Signals of one name."""

    def __init__(self, connection: NatsConnection, name: str) -> None:
        self._connection = connection
        self._name = name
        account = MEMBER_SIGNALS if connection.is_member else CONTROL_SIGNALS
        self._root = f"{account}.{name}"

    async def send(self, key: str) -> None:
        """Tell that something happened to `key`."""
        check_key(self._name, key)
        client = self._connection.sender
        if client is not None and client.pending_data_size < _MAX_UNSENT_BYTES:
            with suppress(nats.errors.Error, OSError):
                await client.publish(f"{self._root}.{key}")

    @asynccontextmanager
    async def listen(self, prefix: str) -> AsyncIterator[NatsListener]:
        """Hear of the keys that are `prefix` or begin with `prefix.`."""
        check_key(self._name, prefix)
        listener = NatsListener(self._connection, self._name, prefix)
        with self._connection.on_loss(listener.lose):
            try:
                await listener.begin()
                yield listener
            finally:
                await listener.end()


class NatsListener:
    """Hears of signals; subscribes anew, when it is asked for the next one, after a lost connection."""

    def __init__(self, connection: NatsConnection, name: str, prefix: str) -> None:
        subject = f"{SIGNALS}.*.{name}"
        self._heard = SignalBuffer()
        self._subscription = NatsSubscription(
            connection,
            f"listen to signals of {prefix!r} in {name!r}",
            (f"{subject}.{prefix}", f"{subject}.{prefix}.>"),
            self._receive,
        )

    async def begin(self) -> None:
        """Subscribe. Raises Unavailable or Denied."""
        await self._subscription.begin()

    async def end(self) -> None:
        """Hear no more."""
        await self._subscription.end()

    def lose(self) -> None:
        """The connection is lost."""
        self._subscription.lost = True
        self._heard.miss()

    async def next(self, timeout: float) -> str | None:
        """The key of the next signal, or None."""
        if not self._subscription.lost or self._heard.missed:
            return await self._heard.next(timeout)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                await self._begin_again()
        return None

    async def _begin_again(self) -> None:
        try:
            await self.begin()
        except MeshError as error:
            # What it may not hear any more it will not be told in an hour either, but it may look.
            if isinstance(error, Denied):
                await asyncio.Event().wait()

    async def _receive(self, message: Msg) -> None:
        self._heard.add(message.subject.split(".", 3)[3])
