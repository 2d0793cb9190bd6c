"""Following a bucket: an ephemeral consumer that is made anew whenever anything may have been missed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from weft.aio.backoff import backoff
from weft.errors import Unavailable
from weft.store.bucket import Change, Codec, Entry, Put, Removal, Removed, Snapshot
from weft.store.keys import decoded
from weft.store.nats_connection import NatsConnection
from weft.store.nats_deliveries import Deliveries, StartOver, deliveries
from weft.store.nats_expiry import Expiries
from weft.store.nats_read import last_message
from weft.store.nats_wire import filters, removal, stream_name, subject, time_left

logger = logging.getLogger(__name__)

T = TypeVar("T")

_STILL_THERE = 0.5
"""Seconds until the server is asked again about a key that is due and still there: clocks differ."""


class NatsWatch(Generic[T]):
    """A watch over the keys of `bucket` under `prefix`."""

    def __init__(self, connection: NatsConnection, bucket: str, codec: Codec[T], prefix: str) -> None:
        self._connection = connection
        self._bucket = bucket
        self._codec = codec
        self._prefix = prefix
        self._key_start = len(subject(bucket, ""))

    async def changes(self) -> AsyncGenerator[Change[T]]:
        """Yield a Snapshot, then single changes, and a Snapshot again after every interruption; for ever."""
        pauses = backoff(longest=2.0)
        while True:
            try:
                async with self._deliveries() as messages:
                    live = Expiries(asyncio.get_running_loop().time)
                    known = await self._snapshot(messages, live)
                    yield Snapshot(tuple(known[key] for key in sorted(known)))
                    pauses = backoff(longest=2.0)
                    del known
                    while True:
                        change = self._change(await messages.next(until=live.next), live)
                        if change is None:
                            change = await self._expired(live, messages)
                        if change is not None:
                            yield change
            except (StartOver, Unavailable, nats.js.errors.NotFoundError, nats.errors.Error) as reason:
                logger.info("the watch of bucket %r starts over: %s", self._bucket, reason)
            await asyncio.sleep(next(pauses))

    async def _expired(self, live: Expiries, messages: Deliveries) -> Removed | None:
        """The end of a key that is due, if it is gone, and was not written or deleted since."""
        while (due := live.take_due()) is not None:
            key, revision = due
            stands = await last_message(self._connection, self._bucket, key)
            # What a new connection says belongs behind the snapshot that it begins with.
            messages.check_unbroken()
            if stands is None:
                live.forget(key)
                return Removed(key, Removal.EXPIRED, revision)
            if stands.seq == revision:
                live.look_again(key, revision, _STILL_THERE)
        return None

    async def _snapshot(self, messages: Deliveries, live: Expiries) -> dict[str, Entry[T]]:
        """Read until nothing more is pending."""
        found: dict[str, Entry[T]] = {}
        pending = messages.pending
        while pending:
            message = await messages.next()
            pending = message.metadata.num_pending if message else 0
            change = self._change(message, live)
            if isinstance(change, Put):
                found[change.entry.key] = change.entry
            elif change is not None:
                del found[change.key]
        return found

    def _change(self, message: Msg | None, live: Expiries) -> Put[T] | Removed | None:
        """What `message` says to somebody who knows the keys in `live`, which is kept up to date."""
        if message is None:
            return None
        key = message.subject[self._key_start :]
        revision = message.metadata.sequence.stream
        reason = removal(message.headers)
        if reason is None:
            entry = decoded(self._bucket, key, message.data, revision, self._codec)
            if entry is not None or key in live:
                age = time.time() - message.metadata.timestamp.timestamp()
                live.know(key, revision, time_left(message.headers, age))
            return Put(entry) if entry is not None else None
        if key not in live:
            return None
        live.forget(key)
        return Removed(key, reason, revision)

    def _deliveries(self) -> AbstractAsyncContextManager[Deliveries]:
        """A consumer of the latest message of every key, and of all that follow."""
        return deliveries(
            self._connection,
            stream_name(self._bucket),
            filters(self._bucket, self._prefix),
            policy=DeliverPolicy.LAST_PER_SUBJECT,
            what=f"watch bucket {self._bucket!r}",
        )
