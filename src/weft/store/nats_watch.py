"""Following a bucket: an ephemeral consumer that is made anew whenever anything may have been missed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy

from weft.aio.backoff import backoff
from weft.errors import Unavailable
from weft.store.bucket import Change, Codec, Entry, Put, Removed, Snapshot
from weft.store.keys import decoded
from weft.store.nats_connection import NatsConnection
from weft.store.nats_deliveries import Deliveries, StartOver, deliveries
from weft.store.nats_wire import filters, removal, stream_name, subject

logger = logging.getLogger(__name__)

T = TypeVar("T")


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
                    known = await self._snapshot(messages)
                    yield Snapshot(tuple(known[key] for key in sorted(known)))
                    pauses = backoff(longest=2.0)
                    live = set(known)
                    del known
                    while True:
                        change = self._change(await messages.next(), live)
                        if change is not None:
                            yield change
            except (StartOver, Unavailable, nats.js.errors.NotFoundError, nats.errors.Error) as reason:
                logger.info("the watch of bucket %r starts over: %s", self._bucket, reason)
            await asyncio.sleep(next(pauses))

    async def _snapshot(self, messages: Deliveries) -> dict[str, Entry[T]]:
        """Read until nothing more is pending."""
        found: dict[str, Entry[T]] = {}
        live: set[str] = set()
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

    def _change(self, message: Msg | None, live: set[str]) -> Put[T] | Removed | None:
        """What `message` says to somebody who knows the keys in `live`, which is kept up to date."""
        if message is None:
            return None
        key = message.subject[self._key_start :]
        revision = message.metadata.sequence.stream
        reason = removal(message.headers)
        if reason is None:
            entry = decoded(self._bucket, key, message.data, revision, self._codec)
            if entry is None:
                return None
            live.add(key)
            return Put(entry)
        # The marker of a deleted key has a time to live too, and leaves a marker of expiry in its turn.
        if key not in live:
            return None
        live.discard(key)
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
