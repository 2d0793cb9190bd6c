"""A bucket's content as it stands now, followed in the background."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from weft.aio.generation import Generation
from weft.aio.tasks import TaskOwner
from weft.store.bucket import Bucket, Change, Entry, Put, Removed, Snapshot

T = TypeVar("T")


def _value(entry: Entry[T]) -> T:
    return entry.value


class Followed(Generic[T]):
    """A live copy of a bucket. Open it with `follow`."""

    def __init__(self, value_of: Callable[[Entry[T]], T] = _value) -> None:
        self._value_of = value_of
        self._current: Mapping[str, T] = {}
        self._generation = Generation()

    @classmethod
    @asynccontextmanager
    async def follow(
        cls, bucket: Bucket[T], *, name: str, value_of: Callable[[Entry[T]], T] = _value
    ) -> AsyncIterator[Followed[T]]:
        """Within the context, a copy that is complete and kept up to date; `name` says in logs of what.

        `value_of` may make more of an entry than its value: add its revision, say.
        """
        followed = cls(value_of)
        async with TaskOwner(name) as tasks:
            tasks.start(followed._follow(bucket), name="follow the store", endless=True)
            await followed.changed_since(0)
            yield followed

    @property
    def values(self) -> Mapping[str, T]:
        """All values by their keys. A change makes a new mapping."""
        return self._current

    @property
    def generation(self) -> int:
        """Grows with every change; 0 until the first snapshot."""
        return self._generation.number

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        return await self._generation.later_than(generation)

    async def _follow(self, bucket: Bucket[T]) -> None:
        async with bucket.watch() as changes:
            async for change in changes:
                self._take(change)

    def _take(self, change: Change[T]) -> None:
        if isinstance(change, Put) and self._current.get(change.entry.key) == self._value_of(change.entry):
            return  # what is written again only so that it does not lapse, as many things are
        current = self._after(change)
        if current == self._current and self._generation.number:
            return  # a lost connection begins with a snapshot again, which may say nothing new
        self._current = current
        self._generation.advance()

    def _after(self, change: Change[T]) -> Mapping[str, T]:
        match change:
            case Snapshot(entries):
                return {entry.key: self._value_of(entry) for entry in entries}
            case Put(entry):
                return {**self._current, entry.key: self._value_of(entry)}
            case Removed(key):
                return {name: each for name, each in self._current.items() if name != key}
