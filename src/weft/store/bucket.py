"""The contract of the store: what NATS KV and the in-memory twin both promise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from weft.store.broadcast import Broadcast
from weft.store.journal import DEFAULT_LIMITS, Journal, JournalLimits
from weft.store.signals import Signals

T = TypeVar("T")

MAX_VALUE_BYTES = 1000 * 1024
"""A larger value is refused with InvalidRequest. NATS takes messages of 1 MiB, headers included."""


class Codec(Protocol[T]):
    """How a bucket's values become bytes and come back."""

    def encode(self, value: T) -> bytes:
        """Return the bytes that stand for `value`."""
        ...

    def decode(self, data: bytes) -> T:
        """Return the value that `data` stands for; raise ValueError if it is garbage."""
        ...


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """A key's value, at the revision at which it was written."""

    key: str
    value: T
    revision: int
    """Grows with every write to the bucket."""


class Removal(StrEnum):
    """Why a key is gone."""

    DELETED = "deleted"
    EXPIRED = "expired"
    """Its time to live ran out before it was written again."""


@dataclass(frozen=True, slots=True)
class Put(Generic[T]):
    """A key was written."""

    entry: Entry[T]


@dataclass(frozen=True, slots=True)
class Removed:
    """A key is gone."""

    key: str
    reason: Removal
    revision: int
    """Of the deletion; of a key that expired at least that of its value."""


@dataclass(frozen=True, slots=True)
class Snapshot(Generic[T]):
    """All that a watch covers, as it stands now: replaces whatever the watcher knew."""

    entries: tuple[Entry[T], ...]


Change = Snapshot[T] | Put[T] | Removed
"""What a watch yields: a snapshot first, then single changes; a snapshot anew whenever it lost its place."""


class Bucket(Protocol[T]):
    """Named values with revisions. Keys are dot-separated tokens of letters, digits, `-` and `_`.

    Every method but `watch` raises Unavailable when the store cannot be reached within its time limit. A
    write that was on its way when the connection broke raises it too, and may have been done.
    `ttl` is in seconds (at least 1; NATS rounds it up to whole ones): the key expires unless it is written
    again before. A value that cannot be decoded is logged and as good as absent to readers; it can be
    overwritten. A key, value or ttl that no bucket takes raises InvalidRequest.
    """

    async def get(self, key: str) -> Entry[T] | None:
        """Return the entry of `key`, or None."""
        ...

    async def create(self, key: str, value: T, *, ttl: float | None = None) -> int:
        """Write a key that must not exist; return its revision. Raises Conflict if it exists."""
        ...

    async def put(self, key: str, value: T, *, ttl: float | None = None) -> int:
        """Write a key, whatever was there; return its revision."""
        ...

    async def update(self, key: str, value: T, *, revision: int, ttl: float | None = None) -> int:
        """Write a key that must stand at `revision`; return the new one. Raises Conflict if it does not."""
        ...

    async def delete(self, key: str, *, revision: int | None = None) -> None:
        """Remove a key, if given only at `revision` (else Conflict). A missing key is no error."""
        ...

    async def entries(self, prefix: str = "") -> list[Entry[T]]:
        """Return the entries whose keys are `prefix` or begin with `prefix.`, sorted by key; all if empty."""
        ...

    async def recent(
        self, limit: int = 100, prefix: str = "", *, before: int | None = None
    ) -> list[Entry[T]]:
        """The `limit` entries under `prefix` that were written last, the latest first.

        `limit` is 1 to `MAX_RECENT` of `weft.store.journal`; beyond that raises InvalidRequest. Only those
        with revisions below `before`, if given: that of the last entry leads to the ones written before it.
        Raises Denied where the store does not permit it; in NATS that is for the control plane only, as are
        `entries` and `watch`.
        """
        ...

    def watch(self, prefix: str = "") -> AbstractAsyncContextManager[AsyncIterator[Change[T]]]:
        """Follow the keys that `entries(prefix)` would list.

        The first item is a Snapshot. After a lost connection, or when the reader has fallen too far behind,
        the watch goes on by itself with a new Snapshot; it ends only when the context is left. While the
        store cannot be reached it waits. Changes of one key come in order, but one that is soon followed by
        another may be left out.
        """
        ...


class Store(Protocol):
    """A place that holds buckets."""

    async def bucket(self, name: str, codec: Codec[T], *, direct: bool = False) -> Bucket[T]:
        """Open the bucket `name`, making it if it is not there yet.

        With `direct` any replica of a cluster answers `get`, for keys that one may read by name: much faster,
        but what is read may be older than the last write, and the loser of a race may be told so only when
        it writes.
        """
        ...

    async def journal(
        self, name: str, codec: Codec[T], *, limits: JournalLimits = DEFAULT_LIMITS
    ) -> Journal[T]:
        """Open the journal `name`, making it within `limits` if it is not there yet."""
        ...

    def signals(self, name: str) -> Signals:
        """Signals of the name `name`, which is made as a bucket's. Raises InvalidRequest for a bad one."""
        ...

    def broadcast(self, name: str, *, of_members: bool = False) -> Broadcast:
        """Messages of the name `name`, likewise, among replicas of the control plane.

        Those `of_members` members send, as far as they are permitted to, and the control plane hears.
        """
        ...

    @property
    def connected(self) -> bool:
        """Whether the store can be reached now."""
        ...

    async def close(self) -> None:
        """Let go of the store; what is written stays (in memory: is lost)."""
        ...
