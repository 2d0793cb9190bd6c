"""A journal in memory: the same contract as in NATS, with nothing kept."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Generic, TypeVar

from weft.errors import Unavailable
from weft.store.bucket import Codec
from weft.store.journal import JournalEntry, JournalLimits
from weft.store.keys import check_prefix, covers, decoded
from weft.store.records import check_recent, encoded

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Line:
    tail: str
    data: bytes
    position: int
    written_at: float


class JournalLines:
    """What a journal holds, as bytes; shared by all who open it."""

    def __init__(self, name: str, limits: JournalLimits) -> None:
        self.name = name
        self.lines: deque[_Line] = deque()
        self.last = 0
        """The position of the last line there was."""
        self._limits = limits
        self._bytes = 0
        self._news = asyncio.Event()

    def write(self, tail: str, data: bytes) -> int:
        """Add a line, drop what is beyond the limits, and wake those who follow."""
        self.last += 1
        self.lines.append(_Line(tail, data, self.last, time.time()))
        self._bytes += len(data)
        self.forget_old()
        self._news.set()
        self._news = asyncio.Event()
        return self.last

    def forget_old(self) -> None:
        """Drop what is beyond the limits."""
        oldest = time.time() - self._limits.max_age
        while self.lines and (self.lines[0].written_at < oldest or self._bytes > self._limits.max_bytes):
            self._bytes -= len(self.lines.popleft().data)

    async def more(self) -> None:
        """Return when a line is added."""
        await self._news.wait()


class MemoryJournal(Generic[T]):
    """A Journal over lines in memory."""

    def __init__(self, lines: JournalLines, codec: Codec[T], reachable: asyncio.Event) -> None:
        """`reachable` is set unless the store was interrupted."""
        self._lines = lines
        self._name = lines.name
        self._codec = codec
        self._reachable = reachable

    async def append(self, tail: str, record: T) -> int:
        """Write `record` down; return its position."""
        data = encoded(self._name, tail, record, self._codec)
        self._check_reachable()
        return self._lines.write(tail, data)

    async def recent(self, limit: int = 100, prefix: str = "") -> list[JournalEntry[T]]:
        """The last `limit` entries whose tails are `prefix` or begin with `prefix.`, oldest first."""
        check_recent(self._name, limit, prefix)
        self._check_reachable()
        self._lines.forget_old()
        return list(islice(self._entries(reversed(self._lines.lines), prefix), limit))[::-1]

    @asynccontextmanager
    async def follow(self, prefix: str = "") -> AsyncIterator[AsyncIterator[JournalEntry[T]]]:
        """Each entry of those tails that is written from now on."""
        check_prefix(self._name, prefix)
        self._check_reachable()
        async with aclosing(self._following(self._lines.last, prefix)) as entries:
            yield entries

    async def _following(self, position: int, prefix: str) -> AsyncGenerator[JournalEntry[T]]:
        while True:
            await self._reachable.wait()
            waiting = [each for each in self._lines.lines if each.position > position]
            position = self._lines.last
            for entry in self._entries(iter(waiting), prefix):
                yield entry
            if position == self._lines.last:
                await self._lines.more()

    def _entries(self, lines: Iterator[_Line], prefix: str) -> Iterator[JournalEntry[T]]:
        for each in lines:
            if covers(prefix, each.tail):
                entry = decoded(self._name, each.tail, each.data, each.position, self._codec)
                if entry is not None:
                    yield JournalEntry(each.tail, entry.value, each.position, each.written_at)

    def _check_reachable(self) -> None:
        if not self._reachable.is_set():
            raise Unavailable(f"journal {self._name!r}: the store in memory was interrupted; resume it")
