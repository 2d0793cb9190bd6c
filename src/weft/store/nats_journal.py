"""A journal in a NATS stream: its entries are the messages, their tails the ends of the subjects."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, DiscardPolicy, StorageType, StreamConfig

from weft.aio.backoff import backoff
from weft.errors import Unavailable
from weft.store.bucket import Codec
from weft.store.journal import (
    MAX_RECORD_BYTES,
    MAX_RECORDS_PER_TAIL,
    JournalEntry,
    JournalLimits,
)
from weft.store.keys import check_prefix, decoded
from weft.store.nats_connection import NatsConnection
from weft.store.nats_deliveries import Deliveries, StartOver, deliveries
from weft.store.nats_recent import recent, stream_state
from weft.store.records import check_recent, encoded

logger = logging.getLogger(__name__)

T = TypeVar("T")

_HEADER_BYTES = 1024


def journal_config(name: str, limits: JournalLimits, *, replicas: int) -> StreamConfig:
    """The stream for the journal `name`: nobody can remove anything from it but the limits."""
    return StreamConfig(
        name=name,
        subjects=[f"{name}.>"],
        storage=StorageType.FILE,
        num_replicas=replicas,
        max_age=limits.max_age,
        max_bytes=limits.max_bytes,
        max_msg_size=MAX_RECORD_BYTES + _HEADER_BYTES,
        max_msgs_per_subject=MAX_RECORDS_PER_TAIL,
        discard=DiscardPolicy.OLD,
        deny_delete=True,
        deny_purge=True,
    )


class NatsJournal(Generic[T]):
    """A Journal whose entries are the messages of a stream."""

    def __init__(self, connection: NatsConnection, name: str, codec: Codec[T]) -> None:
        self._connection = connection
        self._name = name
        self._codec = codec

    async def append(self, tail: str, record: T) -> int:
        """Write `record` down; return its position."""
        data = encoded(self._name, tail, record, self._codec)
        acknowledgement = await self._connection.call(
            f"write to journal {self._name!r}",
            lambda jetstream: jetstream.publish(f"{self._name}.{tail}", data, stream=self._name),
            subjects=[f"{self._name}.{tail}"],
        )
        return acknowledgement.seq

    async def recent(self, limit: int = 100, prefix: str = "") -> list[JournalEntry[T]]:
        """The last `limit` entries whose tails are `prefix` or begin with `prefix.`, oldest first."""
        check_recent(self._name, limit, prefix)
        what = f"read journal {self._name!r}"
        try:
            async with asyncio.timeout(self._connection.timeout):
                found = await recent(
                    self._connection,
                    self._name,
                    self._filters(prefix),
                    self._entry,
                    limit=limit,
                    before=None,
                    what=what,
                )
                return found[::-1]
        except (TimeoutError, StartOver, nats.js.errors.NotFoundError) as error:
            raise self._connection.unavailable(what, error) from error

    @asynccontextmanager
    async def follow(self, prefix: str = "") -> AsyncIterator[AsyncIterator[JournalEntry[T]]]:
        """Each entry of those tails that is written from now on."""
        check_prefix(self._name, prefix)
        state = await stream_state(self._connection, self._name, f"follow journal {self._name!r}")
        async with aclosing(self._following(state.last_seq, prefix)) as entries:
            yield entries

    async def _following(self, position: int, prefix: str) -> AsyncGenerator[JournalEntry[T]]:
        what = f"follow journal {self._name!r}"
        pauses = backoff(longest=2.0)
        while True:
            try:
                # A server that came back without its data counts from the beginning.
                state = await stream_state(self._connection, self._name, what)
                position = min(position, state.last_seq)
                async with self._deliveries(prefix, position + 1, what) as messages:
                    while True:
                        message = await messages.next()
                        pauses = backoff(longest=2.0)
                        if message is not None:
                            position = message.metadata.sequence.stream
                        entry = self._entry(message)
                        if entry is not None:
                            yield entry
            except (StartOver, Unavailable, nats.js.errors.NotFoundError, nats.errors.Error) as reason:
                logger.info("the reader of journal %r looks again: %s", self._name, reason)
            await asyncio.sleep(next(pauses))

    def _deliveries(self, prefix: str, start: int, what: str) -> AbstractAsyncContextManager[Deliveries]:
        return deliveries(
            self._connection,
            self._name,
            self._filters(prefix),
            policy=DeliverPolicy.BY_START_SEQUENCE,
            start=start,
            what=what,
        )

    def _filters(self, prefix: str) -> list[str]:
        return [f"{self._name}.{prefix}", f"{self._name}.{prefix}.>"] if prefix else [f"{self._name}.>"]

    def _entry(self, message: Msg | None) -> JournalEntry[T] | None:
        if message is None:
            return None
        tail = message.subject.removeprefix(f"{self._name}.")
        position = message.metadata.sequence.stream
        entry = decoded(self._name, tail, message.data, position, self._codec)
        if entry is None:
            return None
        return JournalEntry(tail, entry.value, position, message.metadata.timestamp.timestamp())
