"""A member's own way to the store, which ends with the member."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Generic, TypeVar

from weft.errors import Denied
from weft.store.broadcast import Broadcast
from weft.store.bucket import Bucket, Change, Codec, Entry, Store
from weft.store.journal import DEFAULT_LIMITS, Journal, JournalLimits
from weft.store.signals import Signals

T = TypeVar("T")


class MortalStore:
    """A Store until `end`: then its buckets take and tell nothing more, and raise Denied.

    Whoever is killed writes nothing any more. What breaks off in it tries, and must not be told to try again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.ended = False

    def end(self) -> None:
        """Have its member be dead."""
        self.ended = True

    def check(self) -> None:
        """Raises Denied once its member is dead."""
        if self.ended:
            raise Denied("this instance was killed")

    @property
    def connected(self) -> bool:
        """Whether the store can be reached."""
        return self._store.connected and not self.ended

    async def bucket(self, name: str, codec: Codec[T], *, direct: bool = False) -> Bucket[T]:
        """Open the bucket `name`."""
        return _MortalBucket(self, await self._store.bucket(name, codec, direct=direct))

    async def journal(
        self, name: str, codec: Codec[T], *, limits: JournalLimits = DEFAULT_LIMITS
    ) -> Journal[T]:
        """Open the journal `name`."""
        self.check()
        return await self._store.journal(name, codec, limits=limits)

    def signals(self, name: str) -> Signals:
        """Signals of the name `name`."""
        return self._store.signals(name)

    def broadcast(self, name: str, *, of_members: bool = False) -> Broadcast:
        """Messages of the name `name`."""
        return self._store.broadcast(name, of_members=of_members)

    async def close(self) -> None:
        """Let go of it; it is everybody's, and stays."""


class _MortalBucket(Generic[T]):
    def __init__(self, life: MortalStore, bucket: Bucket[T]) -> None:
        self._life = life
        self._bucket = bucket

    async def get(self, key: str) -> Entry[T] | None:
        self._life.check()
        return await self._bucket.get(key)

    async def create(self, key: str, value: T, *, ttl: float | None = None) -> int:
        self._life.check()
        return await self._bucket.create(key, value, ttl=ttl)

    async def put(self, key: str, value: T, *, ttl: float | None = None) -> int:
        self._life.check()
        return await self._bucket.put(key, value, ttl=ttl)

    async def update(self, key: str, value: T, *, revision: int, ttl: float | None = None) -> int:
        self._life.check()
        return await self._bucket.update(key, value, revision=revision, ttl=ttl)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        self._life.check()
        await self._bucket.delete(key, revision=revision)

    async def entries(self, prefix: str = "") -> list[Entry[T]]:
        self._life.check()
        return await self._bucket.entries(prefix)

    async def recent(
        self, limit: int = 100, prefix: str = "", *, before: int | None = None
    ) -> list[Entry[T]]:
        self._life.check()
        return await self._bucket.recent(limit, prefix, before=before)

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Change[T]]]:
        return self._bucket.watch(prefix)
