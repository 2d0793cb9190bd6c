"""A bucket in a NATS KV stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from typing import Generic, TypeVar

import nats.errors
import nats.js.errors
from nats.aio.msg import Msg
from nats.js.api import RawStreamMsg

from weft.errors import Conflict, Unavailable
from weft.store.bucket import Change, Codec, Entry, Snapshot
from weft.store.keys import check_key, check_prefix, check_write, decoded
from weft.store.nats_connection import NatsConnection
from weft.store.nats_deliveries import StartOver
from weft.store.nats_failures import WrongRevision
from weft.store.nats_latest import latest
from weft.store.nats_read import last_message
from weft.store.nats_recent import recent
from weft.store.nats_watch import NatsWatch
from weft.store.nats_wire import delete_headers, filters, removal, stream_name, subject, write_headers
from weft.store.records import check_recent

T = TypeVar("T")


class NatsBucket(Generic[T]):
    """A Bucket whose keys are the subjects of a stream."""

    def __init__(
        self, connection: NatsConnection, name: str, codec: Codec[T], *, direct: bool = False
    ) -> None:
        """`direct`: any replica may answer `get`."""
        self._connection = connection
        self._direct = direct
        self._name = name
        self._codec = codec

    async def get(self, key: str) -> Entry[T] | None:
        """Return the entry of `key`, or None."""
        check_key(self._name, key)
        message = await self._last_message(key)
        if message is None or removal(message.headers):
            return None
        return decoded(self._name, key, message.data or b"", message.seq or 0, self._codec)

    async def create(self, key: str, value: T, *, ttl: float | None = None) -> int:
        """Write a key that must not exist; return its revision. Raises Conflict if it exists."""
        data = self._checked(key, value, ttl)
        try:
            return await self._write(key, data, ttl, revision=0)
        except WrongRevision:
            # What stands there may be but the marker of a removed key.
            marker = await self._last_message(key)
        if marker is not None and not removal(marker.headers):
            raise Conflict(f"bucket {self._name!r}: key {key!r} exists already")
        return await self._write(key, data, ttl, revision=marker.seq or 0 if marker else 0)

    async def put(self, key: str, value: T, *, ttl: float | None = None) -> int:
        """Write a key, whatever was there; return its revision."""
        return await self._write(key, self._checked(key, value, ttl), ttl, revision=None)

    async def update(self, key: str, value: T, *, revision: int, ttl: float | None = None) -> int:
        """Write a key that must stand at `revision`; return the new one. Raises Conflict if it does not."""
        data = self._checked(key, value, ttl)
        if revision < 1:
            raise WrongRevision(f"bucket {self._name!r}: no key stands at revision {revision}")
        return await self._write(key, data, ttl, revision=revision)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key, if given only at `revision` (else Conflict). A missing key is no error."""
        check_key(self._name, key)
        while (message := await self._last_message(key)) is not None and not removal(message.headers):
            current = message.seq or 0
            if revision not in {None, current}:
                raise Conflict(f"bucket {self._name!r}: key {key!r} does not stand at revision {revision}")
            try:
                await self._publish(key, b"", delete_headers(current), "delete")
            except WrongRevision:
                continue
            return

    async def entries(self, prefix: str = "") -> list[Entry[T]]:
        """Return the entries whose keys are `prefix` or begin with `prefix.`, sorted by key; all if empty."""
        try:
            async with asyncio.timeout(self._connection.timeout), self.watch(prefix) as changes:
                async for change in changes:
                    if isinstance(change, Snapshot):
                        return list(change.entries)
        except TimeoutError as error:
            raise self._connection.unavailable(f"list bucket {self._name!r}") from error
        raise AssertionError("a watch ends only when its context is left")

    async def recent(
        self, limit: int = 100, prefix: str = "", *, before: int | None = None
    ) -> list[Entry[T]]:
        """The `limit` entries under `prefix` that were written last, the latest first."""
        check_recent(self._name, limit, prefix)
        what = f"list bucket {self._name!r}"
        try:
            async with asyncio.timeout(self._connection.timeout):
                found, place = await self._latest(limit, prefix, before, what)
                if len(found) == limit:
                    return found
                return found + await recent(
                    self._connection,
                    stream_name(self._name),
                    filters(self._name, prefix),
                    self._delivered,
                    limit=limit - len(found),
                    before=place,
                    what=what,
                )
        except (TimeoutError, StartOver, nats.js.errors.NotFoundError) as error:
            raise self._connection.unavailable(what, error) from error

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Change[T]]]:
        """Follow the keys that `entries(prefix)` would list."""
        check_prefix(self._name, prefix)
        return aclosing(NatsWatch(self._connection, self._name, self._codec, prefix).changes())

    async def _latest(
        self, limit: int, prefix: str, before: int | None, what: str
    ) -> tuple[list[Entry[T]], int | None]:
        """What is found near the end, and where to look further."""
        if not self._direct:
            return [], before
        under = tuple(each.removesuffix(">") for each in filters(self._name, prefix))

        def made(place: str, sequence: int, message: Msg) -> Entry[T] | None:
            passes = place.startswith(under[-1]) or place == under[0]
            if not passes or removal(message.headers):
                return None
            key = place[len(subject(self._name, "")) :]
            return decoded(self._name, key, message.data, sequence, self._codec)

        try:
            return await latest(self._connection, self._name, made, limit=limit, before=before, what=what)
        except Unavailable as error:
            # A bucket may have been made so that its leader alone answers.
            if isinstance(error.__cause__, nats.errors.NoRespondersError):
                return [], before
            raise

    def _delivered(self, message: Msg) -> Entry[T] | None:
        if removal(message.headers):
            return None
        key = message.subject[len(subject(self._name, "")) :]
        return decoded(self._name, key, message.data, message.metadata.sequence.stream, self._codec)

    def _checked(self, key: str, value: T, ttl: float | None) -> bytes:
        data = self._codec.encode(value)
        check_write(self._name, key, data, ttl)
        return data

    async def _write(self, key: str, data: bytes, ttl: float | None, *, revision: int | None) -> int:
        return await self._publish(key, data, write_headers(ttl=ttl, revision=revision), "write")

    async def _publish(self, key: str, data: bytes, headers: dict[str, str], what: str) -> int:
        what = f"{what} {key!r} in bucket {self._name!r}"
        return await self._connection.publish(what, subject(self._name, key), data, headers or None)

    async def _last_message(self, key: str) -> RawStreamMsg | None:
        return await last_message(self._connection, self._name, key, direct=self._direct)
