"""A message in a consumer's hands, until it is settled or its time is up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Protocol

from weft.errors import Conflict
from weft.messaging.brokers.rabbitmq_wire import Parcel
from weft.messaging.message import Message


class Hold(Protocol):
    """What a consumer has of one message. RabbitMQ gives it to another once the channel is gone."""

    @property
    def what(self) -> str:
        """The queue or group, as errors call it."""
        ...

    @property
    def lost(self) -> bool:
        """Whether the channel is gone, and the message with it."""
        ...

    async def check(self) -> None:
        """Raise Unavailable if RabbitMQ cannot be reached."""
        ...

    async def finish(self) -> None:
        """It is done with."""
        ...

    async def give_back(self, delay: float) -> None:
        """It is to come again in so many seconds."""
        ...

    async def bury(self, reason: str) -> None:
        """It is a dead letter. Raises InvalidRequest in a group."""
        ...

    def time_out(self) -> None:
        """Nobody has said a word about it for too long."""
        ...


class RabbitDelivery:
    """What was pulled.

    RabbitMQ does not count the time of one message; so the visibility timeout is counted here. A process that
    hangs counts no longer, but is heard of no longer either, and RabbitMQ takes back what it had.
    """

    __slots__ = ("_deadline", "_hold", "_lane", "_parcel", "_settled", "_timed_out", "_visibility")

    def __init__(self, parcel: Parcel, lane: int, hold: Hold, visibility: float) -> None:
        """`visibility`: seconds."""
        self._parcel = parcel
        self._lane = lane
        self._hold = hold
        self._visibility = visibility
        self._settled = False
        self._timed_out = False
        self._deadline = self._begin()

    @property
    def message(self) -> Message:
        """What was sent."""
        return self._parcel.message

    @property
    def lane(self) -> int:
        """Priority or partition."""
        return self._lane

    @property
    def subtopic(self) -> str:
        """Of a topic's message."""
        return self._parcel.subtopic

    @property
    def deliveries(self) -> int:
        """How often it has been delivered; looking at it where it lies is counted too."""
        return self._parcel.delivered + 1

    @property
    def sequence(self) -> int:
        """Its place in its topic, of what is replayed; of new messages RabbitMQ does not tell it."""
        return self._parcel.sequence

    @property
    def sent_at(self) -> float:
        """Seconds since 1970."""
        return self._parcel.sent_at

    @property
    def settled(self) -> bool:
        """Whether nothing is left to do about it."""
        return self._settled or self._hold.lost

    async def ack(self) -> None:
        """It is done with."""
        await self._settle(self._hold.finish)

    async def nack(self, delay: float = 0.0) -> None:
        """Have it delivered again in `delay` seconds."""
        await self._settle(lambda: self._hold.give_back(delay))

    async def extend(self) -> None:
        """Have the visibility timeout begin anew. Raises Conflict if it is over or the connection lost."""
        if self._timed_out or (self._hold.lost and not self._settled):
            why = "was not extended in time" if self._timed_out else "was lost with the connection"
            raise Conflict(
                f"message {self.message.id} of {self._hold.what} {why}: it is, or will be, delivered again"
            )
        if not self._settled:
            self._deadline.cancel()
            self._deadline = self._begin()

    async def dead_letter(self, reason: str) -> None:
        """Move it to the dead letters of its queue."""
        await self._settle(lambda: self._hold.bury(reason))

    async def _settle(self, settle: Callable[[], Coroutine[Any, Any, None]]) -> None:
        if self._hold.lost and (self._timed_out or not self._settled):
            await self._hold.check()
            return
        if self._settled:
            return
        self._settled = True
        self._deadline.cancel()
        try:
            await settle()
        except BaseException:
            # Perhaps it is done; if not, it comes again in time.
            self._go_on()
            raise

    def _go_on(self) -> None:
        self._settled = False
        self._deadline = self._begin()

    def _begin(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._visibility, self._time_out)

    def _time_out(self) -> None:
        if not self.settled:
            self._settled = self._timed_out = True
            self._hold.time_out()
