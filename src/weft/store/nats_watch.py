"""Following a bucket: an ephemeral consumer that is made anew whenever anything may have been missed.

nats-py's ordered consumer is not used: it goes on where it was, though what it has not seen may be gone along
with its marker, and it does not tell its reader to start over.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from weft.aio.backoff import backoff
from weft.errors import Unavailable
from weft.store.bucket import Change, Codec, Entry, Put, Removed, Snapshot
from weft.store.keys import decoded
from weft.store.nats_connection import NatsConnection
from weft.store.nats_wire import (
    CONTROL_STATUS,
    LAST_DELIVERED,
    STALLED,
    STATUS,
    filters,
    removal,
    stream_name,
    subject,
)

logger = logging.getLogger(__name__)

T = TypeVar("T")

_HEARTBEAT = 1.0
"""Seconds of silence after which the server says that it is still there."""
_SILENCE_LIMIT = 4 * _HEARTBEAT
_INACTIVE_THRESHOLD = 30.0
"""Seconds after which the server forgets a consumer that nobody listens to."""
_GOODBYE_TIMEOUT = 1.0
_BACKLOG_MESSAGES = 65536
_BACKLOG_BYTES = 64 * 1024 * 1024
"""What may wait to be read; a watcher that falls further behind starts over with a snapshot."""


class _StartOver(Exception):
    """The watcher may have missed something."""


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
                async with self._deliveries() as deliveries:
                    known = await self._snapshot(deliveries)
                    yield Snapshot(tuple(known[key] for key in sorted(known)))
                    pauses = backoff(longest=2.0)
                    live = set(known)
                    del known
                    while True:
                        change = self._change(await deliveries.next(), live)
                        if change is not None:
                            yield change
            except (_StartOver, Unavailable, nats.js.errors.NotFoundError, nats.errors.Error) as reason:
                logger.info("the watch of bucket %r starts over: %s", self._bucket, reason)
            await asyncio.sleep(next(pauses))

    async def _snapshot(self, deliveries: _Deliveries) -> dict[str, Entry[T]]:
        """Read until nothing more is pending."""
        found: dict[str, Entry[T]] = {}
        live: set[str] = set()
        pending = deliveries.pending
        while pending:
            message = await deliveries.next()
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

    @asynccontextmanager
    async def _deliveries(self) -> AsyncIterator[_Deliveries]:
        """A consumer of the latest message of every key, and of all that follow."""
        client = await self._connection.client()
        deliveries = _Deliveries(client)
        inbox = client.new_inbox()
        consumer = ""
        subscription = await client.subscribe(inbox, cb=deliveries.receive)
        try:
            with self._connection.on_loss(deliveries.lose_connection):
                info = await self._connection.call(
                    f"watch bucket {self._bucket!r}",
                    lambda jetstream: jetstream.add_consumer(stream_name(self._bucket), self._config(inbox)),
                )
                consumer = info.name
                deliveries.pending = info.num_pending or 0
                yield deliveries
        finally:
            with suppress(nats.errors.Error, TimeoutError):
                await subscription.unsubscribe()
                if consumer:
                    jetstream = client.jetstream(timeout=_GOODBYE_TIMEOUT)
                    await jetstream.delete_consumer(stream_name(self._bucket), consumer)

    def _config(self, inbox: str) -> ConsumerConfig:
        return ConsumerConfig(
            deliver_subject=inbox,
            deliver_policy=DeliverPolicy.LAST_PER_SUBJECT,
            ack_policy=AckPolicy.NONE,
            filter_subjects=filters(self._bucket, self._prefix),
            flow_control=True,
            idle_heartbeat=_HEARTBEAT,
            inactive_threshold=_INACTIVE_THRESHOLD,
            mem_storage=True,
            num_replicas=1,
        )


class _Deliveries:
    """What a consumer delivered, in order and without gaps, or else _StartOver."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._waiting: deque[Msg] = deque()
        self._bytes = 0
        self._delivered = 0
        self._broken = ""
        self._news = asyncio.Event()
        self.pending = 0
        """How many messages there were to deliver when the consumer was made."""

    async def receive(self, message: Msg) -> None:
        """Take a message from the subscription."""
        if self._broken:
            return
        if _is_control(message):
            await self._answer(message)
        self._waiting.append(message)
        self._bytes += len(message.data)
        if len(self._waiting) > _BACKLOG_MESSAGES or self._bytes > _BACKLOG_BYTES:
            self._break("its reader fell too far behind")
        self._news.set()

    def lose_connection(self) -> None:
        """Make the reader start over."""
        self._break("the connection was lost")

    async def next(self) -> Msg | None:
        """The next message; None when the server says that there is none for now. Raises _StartOver."""
        while True:
            message = await self._wait()
            if not _is_control(message):
                self._check(message.metadata.sequence.consumer == self._delivered + 1)
                self._delivered += 1
                return message
            headers = message.headers or {}
            if LAST_DELIVERED in headers and STALLED not in headers:
                self._check(int(headers[LAST_DELIVERED]) == self._delivered)
                return None

    async def _wait(self) -> Msg:
        if not self._waiting and not self._broken:
            self._news.clear()
            try:
                async with asyncio.timeout(_SILENCE_LIMIT):
                    await self._news.wait()
            except TimeoutError:
                self._break(f"the server was silent for {_SILENCE_LIMIT:g} s")
        if self._broken:
            raise _StartOver(self._broken)
        message = self._waiting.popleft()
        self._bytes -= len(message.data)
        return message

    def _check(self, unbroken: bool) -> None:
        if not unbroken:
            raise _StartOver(f"messages after the {self._delivered}th were lost")

    def _break(self, reason: str) -> None:
        self._broken = reason
        self._waiting.clear()
        self._news.set()

    async def _answer(self, message: Msg) -> None:
        # Answered on arrival, not when read: a slow reader is dealt with by the limits above.
        reply = message.reply or (message.headers or {}).get(STALLED)
        if reply:
            await self._client.publish(reply)


def _is_control(message: Msg) -> bool:
    return message.headers is not None and message.headers.get(STATUS) == CONTROL_STATUS
