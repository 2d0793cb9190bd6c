"""Taking messages out of memory."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Protocol

from weft.errors import Conflict, InvalidRequest, Unavailable
from weft.messaging.broker import MAX_DELAY, Delivery
from weft.messaging.brokers.memory_line import Item, Line
from weft.messaging.message import Message


class Source(Protocol):
    """A queue or a group, as its consumers see it. All but `line` raise Unavailable or NotFound."""

    @property
    def line(self) -> Line:
        """What waits."""
        ...

    @property
    def sequenced(self) -> bool:
        """Whether places in the line mean anything to consumers."""
        ...

    def check(self) -> None:
        """Find out whether the broker can be reached."""
        ...

    def pulled(self) -> None:
        """Somebody pulls."""
        ...

    def finish(self, item: Item) -> None:
        """The message is done with."""
        ...

    def bury(self, item: Item, reason: str) -> None:
        """The message is a dead letter. Raises InvalidRequest for a group."""
        ...


class MemoryDelivery:
    """A message in a consumer's hands."""

    __slots__ = ("_item", "_settled", "_source", "deliveries")

    def __init__(self, item: Item, source: Source) -> None:
        self._item = item
        self._source = source
        self._settled = False
        self.deliveries = item.deliveries

    @property
    def message(self) -> Message:
        """What was sent."""
        return self._item.message

    @property
    def lane(self) -> int:
        """Priority or partition."""
        return self._item.lane

    @property
    def subtopic(self) -> str:
        """Of a topic's message."""
        return self._item.subtopic

    @property
    def sequence(self) -> int:
        """Its place in its topic."""
        return self._item.order if self._source.sequenced else 0

    @property
    def sent_at(self) -> float:
        """Seconds since 1970."""
        return self._item.sent_at

    async def ack(self) -> None:
        """It is done with. Too late this does nothing: somebody else has it."""
        if self._settle():
            self._source.finish(self._item)

    async def nack(self, delay: float = 0.0) -> None:
        """Have it delivered again in `delay` seconds."""
        if self._settle():
            self._source.line.give_back(self._item, min(delay, MAX_DELAY))

    async def extend(self) -> None:
        """Have the visibility timeout begin anew. Raises Conflict if it is over."""
        self._source.check()
        if self._settled:
            return
        if not self._source.line.holds(self._item, self.deliveries):
            raise Conflict(
                f"message {self.message.id} of {self._source.line.name} was not extended in time: "
                "it is, or will be, delivered again"
            )
        self._source.line.extend(self._item)

    async def dead_letter(self, reason: str) -> None:
        """Move it to the dead letters of its queue."""
        self._source.check()
        if not self._settled and self._source.line.holds(self._item, self.deliveries):
            self._source.bury(self._item, reason)
            self._settled = True

    def _settle(self) -> bool:
        """Whether there is still something to do about it."""
        self._source.check()
        if self._settled or not self._source.line.holds(self._item, self.deliveries):
            return False
        self._settled = True
        return True


class MemoryConsumer:
    """Takes messages out of one line."""

    def __init__(self, source: Source, closed: Callable[[MemoryConsumer], None]) -> None:
        """`closed` is called once it is."""
        self._source = source
        self._on_close = closed
        self._closed = False

    async def pull(self, limit: int, *, wait: float) -> Sequence[Delivery]:
        """Up to `limit` messages, as soon as there is one."""
        if limit < 1:
            raise InvalidRequest(f"{self._source.line.name}: {limit} messages cannot be pulled")
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        # Whoever pulls in a loop lets the others have their turn; nothing is taken yet that could be lost.
        await asyncio.sleep(0)
        while True:
            self._check()
            self._source.pulled()
            taken = self._source.line.take(limit, self)
            left = until - loop.time()
            if taken or left <= 0:
                return [MemoryDelivery(item, self._source) for item in taken]
            await self._source.line.more(left)

    async def aclose(self) -> None:
        """Stop; what was not acknowledged comes again at once."""
        if not self._closed:
            self._closed = True
            self._source.line.give_back_all(self)
            self._source.line.wake_all()
            self._on_close(self)

    def _check(self) -> None:
        self._source.check()
        if self._closed:
            raise Unavailable(f"{self._source.line.name}: this consumer is closed; open another one")
