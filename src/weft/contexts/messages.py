"""The messages of a context: each under a key of its own, numbered from 1 without gaps.

Whoever appends creates the key behind the last one; whoever comes second finds it taken, and takes the next.
So nothing is ever counted but by what is there, and a writer that dies leaves nothing half done.
"""

from __future__ import annotations

import asyncio
import logging

from weft.contexts.place import Place
from weft.contexts.records import Message, message_bytes, parse_message
from weft.errors import Conflict, InvalidRequest, Unavailable

logger = logging.getLogger(__name__)

MAX_PAGE = 1000
"""Messages that are read at once."""

MAX_PAGE_BYTES = 64 * 1024 * 1024
"""Bytes after which a page of messages ends, however few they are."""

_AT_ONCE = 32
"""Keys that are read at the same time."""

_MOST_TRIES = 3
"""How often a message is written at most whose fate is unknown: each try may take the store's time limit."""

_LAG = 0.1
"""Seconds that one replica of the store may be behind another: what must be there is looked for again."""
_LOOKS = 20


class MessageLog:
    """The messages of the context at `place`."""

    def __init__(self, place: Place, known: int = 0) -> None:
        """`known`: a message of that number is known to be there."""
        self._place = place
        self.known = known
        """The last message that is known to be there."""

    async def append(self, message: Message) -> Message:
        """Add `message` behind the last one; return it with its number.

        Raises InvalidRequest if it, or the number of messages, would be beyond the limits, NotFound,
        Unavailable (it may be there then) and Denied.
        """
        limits = self._place.head.limits
        data = message_bytes(message, limits.message_bytes)
        number = (self.known or await self.last()) + 1
        while True:
            if number > limits.messages:
                raise InvalidRequest(
                    f"context {self._place.keys.id[:100]!r} has {limits.messages} messages, and takes no "
                    "more: begin another one, with a summary of this one"
                )
            appended = await self._put(number, data)
            self.known = number
            if appended:
                return parse_message(number, data)
            number = await self.last() + 1

    async def _put(self, number: int, data: bytes) -> bool:
        """Write a message at that place; False if another one is there.

        One that may have been written as the connection broke is tried again, and known again by its id.
        Raises Unavailable and Denied.
        """
        key, bucket = self._place.message(number), self._place.bucket
        for left in reversed(range(_MOST_TRIES)):
            try:
                await bucket.create(key, data, ttl=self._place.ttl)
            except Conflict:
                return left < _MOST_TRIES - 1 and await self._certainly(number) == data
            except Unavailable:
                if not left:
                    raise
            else:
                return True
        raise AssertionError("the last try returns or raises")

    async def last(self) -> int:
        """The number of the last message; 0 where there is none. Raises Unavailable and Denied."""
        low, step = self.known, 1
        while await self._is_there(low + step):
            low += step
            step *= 2
        high = low + step
        while high - low > 1:
            middle = (low + high) // 2
            if await self._is_there(middle):
                low = middle
            else:
                high = middle
        self.known = low
        return low

    async def read(self, after: int, limit: int) -> list[Message]:
        """Up to `limit` messages behind number `after`; if that is negative, the last `-after` of them.

        Fewer where they are very large. Raises InvalidRequest for a limit beyond MAX_PAGE, Unavailable,
        Denied.
        """
        if not 1 <= limit <= MAX_PAGE:
            raise InvalidRequest(f"1 to {MAX_PAGE} messages can be read at once, not {limit}")
        if after < 0:
            after = max(0, await self.last() + after)
        found: list[Message] = []
        size = 0
        number = after + 1
        end = number + limit
        while number < end and size < MAX_PAGE_BYTES:
            window = await self._window(number, min(number + _AT_ONCE, end))
            found += [each for each in map(_readable, *_numbered(number, window)) if each is not None]
            size += sum(map(len, window))
            asked = min(number + _AT_ONCE, end) - number
            number += len(window)
            if len(window) < asked:
                break
        self.known = max(self.known, number - 1) if number > after + 1 else self.known
        return found

    async def _window(self, start: int, end: int) -> list[bytes]:
        """The messages from `start` on and before `end`, up to the first that is not there."""
        values = list(await asyncio.gather(*(self._get(number) for number in range(start, end))))
        there = [start + index for index, value in enumerate(values) if value is not None]
        sure = max(self.known, *there, 0)
        result = []
        for number, value in zip(range(start, end), values, strict=True):
            if value is None and number <= sure:
                value = await self._certainly(number)  # noqa: PLW2901
            if value is None:
                break
            result.append(value)
        return result

    async def _certainly(self, number: int) -> bytes | None:
        """A message that is there, though one replica did not know; None if it is gone after all."""
        for _ in range(_LOOKS):
            value = await self._get(number)
            if value is not None:
                return value
            await asyncio.sleep(_LAG)
        return None

    async def _get(self, number: int) -> bytes | None:
        entry = await self._place.bucket.get(self._place.message(number))
        return entry.value if entry is not None else None

    async def _is_there(self, number: int) -> bool:
        if number > self._place.head.limits.messages:
            return False
        return await self._get(number) is not None


def _numbered(start: int, values: list[bytes]) -> tuple[range, list[bytes]]:
    return range(start, start + len(values)), values


def _readable(number: int, data: bytes) -> Message | None:
    try:
        return parse_message(number, data)
    except ValueError as error:
        logger.warning("message %d of a context is skipped: %s", number, error)
        return None
