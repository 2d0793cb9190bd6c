"""The store in memory: the same contract as NATS, with nothing kept. For tests, users' tests included."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from weft.errors import Conflict, Unavailable
from weft.store.broadcast import Broadcast
from weft.store.broadcast_buffer import BroadcastBuffer
from weft.store.bucket import Bucket, Change, Codec, Entry, Put, Removal, Removed, Snapshot
from weft.store.journal import DEFAULT_LIMITS, Journal, JournalLimits
from weft.store.keys import check_bucket, check_key, check_prefix, check_write, covers, decoded
from weft.store.memory_broadcast import MemoryBroadcast
from weft.store.memory_journal import JournalLines, MemoryJournal
from weft.store.memory_signals import MemorySignals, SignalListeners
from weft.store.records import check_recent
from weft.store.signals import Signals

T = TypeVar("T")

_BACKLOG_LIMIT = 65536
"""Changes that may wait for a watcher; one that falls further behind starts over with a snapshot."""


@dataclass(frozen=True, slots=True)
class _Record:
    key: str
    data: bytes
    revision: int
    expiry: asyncio.TimerHandle | None


class _Backlog:
    """The changes that wait for one watcher, or the news that it must start over."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._waiting: deque[_Record | Removed] = deque()
        self._news = asyncio.Event()
        self.stale = True

    def add(self, change: _Record | Removed) -> None:
        if self.stale or not covers(self._prefix, change.key):
            return
        if len(self._waiting) == _BACKLOG_LIMIT:
            self.start_over()
            return
        self._waiting.append(change)
        self._news.set()

    def start_over(self) -> None:
        self._waiting.clear()
        self.stale = True
        self._news.set()

    async def next(self) -> _Record | Removed | None:
        """The next change; None if the watcher must start over."""
        while not self._waiting and not self.stale:
            self._news.clear()
            await self._news.wait()
        return None if self.stale else self._waiting.popleft()


class _Records:
    """The contents of a bucket, as bytes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.by_key: dict[str, _Record] = {}
        self.backlogs: set[_Backlog] = set()
        self._revision = 0

    def write(self, key: str, data: bytes, ttl: float | None) -> int:
        self._forget(key)
        self._revision += 1
        expiry = None
        if ttl is not None:
            expiry = asyncio.get_running_loop().call_later(ttl, self.remove, key, Removal.EXPIRED)
        record = self.by_key[key] = _Record(key, data, self._revision, expiry)
        self._tell(record)
        return self._revision

    def remove(self, key: str, reason: Removal) -> None:
        if self._forget(key):
            self._revision += 1
            self._tell(Removed(key, reason, self._revision))

    def clear(self) -> None:
        for key in tuple(self.by_key):
            self._forget(key)

    def start_over(self) -> None:
        for backlog in self.backlogs:
            backlog.start_over()

    def _forget(self, key: str) -> bool:
        record = self.by_key.pop(key, None)
        if record is not None and record.expiry is not None:
            record.expiry.cancel()
        return record is not None

    def _tell(self, change: _Record | Removed) -> None:
        for backlog in self.backlogs:
            backlog.add(change)


class _MemoryBucket(Generic[T]):
    def __init__(self, records: _Records, codec: Codec[T], reachable: asyncio.Event) -> None:
        self._records = records
        self._name = records.name
        self._codec = codec
        self._reachable = reachable

    async def get(self, key: str) -> Entry[T] | None:
        check_key(self._name, key)
        self._check_reachable()
        record = self._records.by_key.get(key)
        return self._entry(record) if record else None

    async def create(self, key: str, value: T, *, ttl: float | None = None) -> int:
        data = self._checked(key, value, ttl)
        if key in self._records.by_key:
            raise Conflict(f"bucket {self._name!r}: key {key!r} exists already")
        return self._records.write(key, data, ttl)

    async def put(self, key: str, value: T, *, ttl: float | None = None) -> int:
        return self._records.write(key, self._checked(key, value, ttl), ttl)

    async def update(self, key: str, value: T, *, revision: int, ttl: float | None = None) -> int:
        data = self._checked(key, value, ttl)
        record = self._records.by_key.get(key)
        if record is None or record.revision != revision:
            raise Conflict(f"bucket {self._name!r}: key {key!r} does not stand at revision {revision}")
        return self._records.write(key, data, ttl)

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        check_key(self._name, key)
        self._check_reachable()
        record = self._records.by_key.get(key)
        if record is not None and revision not in {None, record.revision}:
            raise Conflict(f"bucket {self._name!r}: key {key!r} does not stand at revision {revision}")
        self._records.remove(key, Removal.DELETED)

    async def entries(self, prefix: str = "") -> list[Entry[T]]:
        check_prefix(self._name, prefix)
        self._check_reachable()
        return self._entries(prefix)

    async def recent(
        self, limit: int = 100, prefix: str = "", *, before: int | None = None
    ) -> list[Entry[T]]:
        check_recent(self._name, limit, prefix)
        self._check_reachable()
        end = math.inf if before is None else before
        # A key that is written moves to the end.
        found = (self._entry(each) for each in reversed(self._records.by_key.values()) if each.revision < end)
        entries = (each for each in found if each is not None and covers(prefix, each.key))
        return list(islice(entries, limit))

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Change[T]]]:
        check_prefix(self._name, prefix)
        return aclosing(self._changes(prefix))

    async def _changes(self, prefix: str) -> AsyncGenerator[Change[T]]:
        backlog = _Backlog(prefix)
        self._records.backlogs.add(backlog)
        try:
            while True:
                await self._reachable.wait()
                if backlog.stale:
                    backlog.stale = False
                    yield Snapshot(tuple(self._entries(prefix)))
                record = await backlog.next()
                change = self._entry(record) if isinstance(record, _Record) else record
                if change is not None:
                    yield Put(change) if isinstance(change, Entry) else change
        finally:
            self._records.backlogs.discard(backlog)

    def _entries(self, prefix: str) -> list[Entry[T]]:
        records = (self._records.by_key[key] for key in sorted(self._records.by_key) if covers(prefix, key))
        entries = (self._entry(record) for record in records)
        return [entry for entry in entries if entry is not None]

    def _entry(self, record: _Record) -> Entry[T] | None:
        return decoded(self._name, record.key, record.data, record.revision, self._codec)

    def _checked(self, key: str, value: T, ttl: float | None) -> bytes:
        data = self._codec.encode(value)
        check_write(self._name, key, data, ttl)
        self._check_reachable()
        return data

    def _check_reachable(self) -> None:
        if not self._reachable.is_set():
            raise Unavailable(f"bucket {self._name!r}: the store in memory was interrupted; resume it")


class MemoryStore:
    """A Store in memory, for one event loop."""

    def __init__(self) -> None:
        self._buckets: dict[str, _Records] = {}
        self._journals: dict[str, JournalLines] = {}
        self._listeners: dict[str, SignalListeners] = {}
        self._broadcasts: dict[tuple[str, bool], set[BroadcastBuffer]] = {}
        self._reachable = asyncio.Event()
        self._reachable.set()

    @property
    def connected(self) -> bool:
        """Whether the store can be reached: it can unless it was interrupted."""
        return self._reachable.is_set()

    async def bucket(self, name: str, codec: Codec[T], *, direct: bool = False) -> Bucket[T]:  # noqa: ARG002
        """Open the bucket `name`, making it if it is not there yet. All who open it see the same contents."""
        check_bucket(name)
        if not self.connected:
            raise Unavailable(f"bucket {name!r}: the store in memory was interrupted; resume it")
        return _MemoryBucket(self._buckets.setdefault(name, _Records(name)), codec, self._reachable)

    async def journal(
        self, name: str, codec: Codec[T], *, limits: JournalLimits = DEFAULT_LIMITS
    ) -> Journal[T]:
        """Open the journal `name`, making it within `limits` if it is not there yet."""
        check_bucket(name)
        if not self.connected:
            raise Unavailable(f"journal {name!r}: the store in memory was interrupted; resume it")
        lines = self._journals.setdefault(name, JournalLines(name, limits))
        return MemoryJournal(lines, codec, self._reachable)

    def signals(self, name: str) -> Signals:
        """Signals of the name `name`."""
        check_bucket(name)
        listeners = self._listeners.setdefault(name, SignalListeners())
        return MemorySignals(name, listeners, self._reachable)

    def broadcast(self, name: str, *, of_members: bool = False) -> Broadcast:
        """Messages of the name `name`."""
        check_bucket(name)
        listeners = self._broadcasts.setdefault((name, of_members), set())
        return MemoryBroadcast(name, listeners, self._reachable)

    def interrupt(self) -> None:
        """Behave as if the connection were lost: operations raise Unavailable, watches fall silent.

        Keys go on expiring. It is for tests of how a program bears an outage.
        """
        self._reachable.clear()
        for records in self._buckets.values():
            records.start_over()
        for listeners in self._listeners.values():
            listeners.miss()

    def resume(self) -> None:
        """Behave as if the connection were back: every watch goes on with a new Snapshot."""
        self._reachable.set()

    async def close(self) -> None:
        """Forget everything."""
        for records in self._buckets.values():
            records.clear()
        self._buckets.clear()
        self._journals.clear()
