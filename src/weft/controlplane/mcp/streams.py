"""The streams by which clients hear of changes: how many there may be, and their end."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Final, TypeVar

from weft.aio.closing import close_behind
from weft.errors import TooMany

MAX_STREAMS: Final = 1024
"""Of one replica."""

MAX_STREAMS_OF_ONE: Final = 32
"""Of one caller."""

_RETRY = 5.0  # seconds

_T = TypeVar("_T")


class Streams:
    """The streams that are open."""

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._ending = asyncio.Event()

    @property
    def open(self) -> int:
        """How many there are."""
        return self._held.total()

    def end(self) -> None:
        """End all that are open, and those to come at once."""
        self._ending.set()

    @contextmanager
    def place(self, who: str) -> Iterator[None]:
        """A place for one more stream of `who`. Raises TooMany."""
        if self._held[who] >= MAX_STREAMS_OF_ONE or self.open >= MAX_STREAMS:
            raise TooMany(
                f"{who} has {self._held[who]} streams of changes open here ({MAX_STREAMS_OF_ONE} at most), "
                f"all together have {self.open} ({MAX_STREAMS} at most): close one, or try again",
                retry_after=_RETRY,
            )
        self._held[who] += 1
        try:
            yield
        finally:
            self._held[who] -= 1
            if not self._held[who]:
                del self._held[who]

    async def until_end(self, items: AsyncGenerator[_T]) -> AsyncGenerator[_T]:
        """`items`, until all streams are to end."""
        ending = asyncio.ensure_future(self._ending.wait())
        upcoming: asyncio.Future[_T] | None = None
        try:
            while True:
                upcoming = asyncio.ensure_future(anext(items))
                await asyncio.wait([upcoming, ending], return_when=asyncio.FIRST_COMPLETED)
                if not upcoming.done():
                    return
                try:
                    yield upcoming.result()
                except StopAsyncIteration:
                    return
                upcoming = None
        finally:
            ending.cancel()
            await close_behind(items, upcoming)
