"""Taking messages out of Redis."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from weft.errors import Conflict, InvalidRequest, MeshError, Unavailable
from weft.messaging.broker import MAX_DELAY, Delivery
from weft.messaging.brokers import redis_script as scripts
from weft.messaging.brokers.redis_line import RedisLine, Ticket
from weft.messaging.brokers.redis_wakes import RedisWakes
from weft.messaging.brokers.redis_wire import by_name, message_of, sent_at

logger = logging.getLogger(__name__)

_RECHECK = 5.0
"""Seconds after which a consumer looks though it heard nothing. As in prelude.lua."""

_MOST = 1000
"""Messages, at most, that one pull brings."""

Background = Callable[[Coroutine[Any, Any, None]], None]
"""Has something done that nobody waits for."""


class RedisDelivery:
    """A message in a consumer's hands."""

    __slots__ = (
        "_line",
        "_settled",
        "_ticket",
        "deliveries",
        "lane",
        "message",
        "sent_at",
        "sequence",
        "subtopic",
    )

    def __init__(
        self, line: RedisLine, taken: Sequence[Any], settled: Callable[[RedisDelivery], None]
    ) -> None:
        """`taken` as scripts tell it. Raises InvalidRequest if that is no message."""
        number, entry, count, fields = taken
        values = by_name(fields)
        self.message = message_of(values)
        self.lane = int(number)
        self.subtopic = values.get(b"t", b"").decode()
        self.deliveries = int(count)
        self.sequence = int(entry.partition(b"-")[2]) if line.sequenced else 0
        self.sent_at = sent_at(values)
        self._line = line
        self._ticket = ticket_of(taken)
        self._settled: Callable[[RedisDelivery], None] | None = settled

    async def ack(self) -> None:
        """It is done with. Too late this does nothing: somebody else has it."""
        if self._settled is not None:
            await self._line.ack(self._ticket)
            self._settle()

    async def nack(self, delay: float = 0.0) -> None:
        """Have it delivered again in `delay` seconds, MAX_DELAY at most."""
        if self._settled is not None:
            await give_back(self._line, self._ticket, delay)
            self._settle()

    async def extend(self) -> None:
        """Have the visibility timeout begin anew. Raises Conflict if somebody else has it."""
        if self._settled is None:
            return
        timers = self._line.timers(self.lane)
        key, field = self._line.settings
        extended = await self._line.connection.run(
            f"extend a message of {self._line.name}",
            scripts.EXTEND,
            (timers.stream, timers.lease, key),
            (self._line.stream_group, field, self.lane, self._ticket.entry, self._ticket.delivery),
        )
        if not extended and self._settled is not None:
            raise Conflict(
                f"message {self.message.id} of {self._line.name} was not extended in time: "
                "it was delivered again, or is gone"
            )

    async def dead_letter(self, reason: str) -> None:
        """Move it to the dead letters of its queue."""
        if self._settled is not None:
            await self._line.bury(self._ticket, reason)
            self._settle()

    def _settle(self) -> None:
        settled, self._settled = self._settled, None
        if settled is not None:
            settled(self)


class RedisConsumer:
    """Takes messages out of one queue or group."""

    def __init__(
        self,
        line: RedisLine,
        wakes: RedisWakes,
        background: Background,
        closed: Callable[[RedisConsumer], None],
    ) -> None:
        """`closed` is called once it is."""
        self._line = line
        self._wakes = wakes
        self._background = background
        self._on_close = closed
        self._number, self._address = wakes.listen(self._hear)
        self._news = asyncio.Event()
        self._pulling = False
        self._place = ""
        self._closed = False
        self._held: set[RedisDelivery] = set()

    async def pull(self, limit: int, *, wait: float) -> Sequence[Delivery]:
        """Up to `limit` messages, as soon as there is one."""
        if limit < 1:
            raise InvalidRequest(f"{self._line.name}: {limit} messages cannot be pulled")
        self._pulling = True
        try:
            return await self._pull(min(limit, _MOST), wait)
        except BaseException:
            self._leave()
            raise
        finally:
            self._pulling = False

    async def aclose(self) -> None:
        """Stop; what was not acknowledged comes again at once, if Redis can be reached."""
        if self._closed:
            return
        self._closed = True
        self._news.set()
        self._wakes.forget(self._number)
        self._on_close(self)
        held, self._held = self._held, set()
        with suppress(MeshError):
            await asyncio.gather(*(each.nack() for each in held))

    async def _pull(self, limit: int, wait: float) -> Sequence[Delivery]:
        clock = asyncio.get_running_loop().time
        until = clock() + wait
        while True:
            self._check()
            self._news.clear()
            left = max(until - clock(), 0.0)
            pause, self._place, taken = await self._take(limit, min(left, _RECHECK))
            self._check_orphans(taken)
            deliveries = self._deliveries(taken)
            if deliveries or (pause == 0 and left == 0):
                return deliveries
            if pause > 0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._news.wait()

    async def _take(self, limit: int, wait: float) -> tuple[float, str, list[Any]]:
        """How many seconds to wait for news, the place among those that wait, and what was taken."""
        arguments = (limit, math.ceil(wait * 1000), self._address, self._place)
        pause, place, *taken = await self._line.take(arguments, self._orphaned)
        return pause / 1000, place.decode(), taken

    def _check(self) -> None:
        if self._closed:
            raise Unavailable(f"{self._line.name}: this consumer is closed; open another one")

    def _check_orphans(self, taken: Sequence[Any]) -> None:
        if self._closed and taken:
            self._background(self._return_all([ticket_of(each) for each in taken]))
            self._check()

    def _deliveries(self, taken: Sequence[Any]) -> list[RedisDelivery]:
        deliveries = []
        for each in taken:
            try:
                deliveries.append(RedisDelivery(self._line, each, self._held.discard))
            except InvalidRequest as error:
                logger.exception("dropping an entry of %s: %s", self._line.name, error.detail)
                self._background(self._drop(ticket_of(each)))
        self._held.update(deliveries)
        return deliveries

    def _orphaned(self, answer: Any) -> None:
        """The answer to a pull that was cancelled: others shall have what it brings."""
        _, place, *taken = answer
        if taken:
            self._background(self._return_all([ticket_of(each) for each in taken]))
        else:
            self._background(self._hand_on(place.decode()))

    def _hear(self) -> None:
        if self._pulling or self._closed:
            self._news.set()
        else:
            self._background(self._hand_on(""))

    def _leave(self) -> None:
        """Wait no more: what this consumer would have heard of, another one hears."""
        place, self._place = self._place, ""
        if place or self._news.is_set():
            self._background(self._hand_on(place))

    async def _hand_on(self, place: str) -> None:
        line = self._line
        with suppress(MeshError):
            await line.connection.run(
                f"stop waiting for {line.name}",
                scripts.LEAVE,
                (line.waiting, line.clock),
                (line.group, place, self._address),
            )

    async def _return_all(self, tickets: Sequence[Ticket]) -> None:
        with suppress(MeshError):
            await asyncio.gather(*(give_back(self._line, each, 0.0) for each in tickets))

    async def _drop(self, ticket: Ticket) -> None:
        with suppress(MeshError):
            await self._line.ack(ticket)


def ticket_of(taken: Sequence[Any]) -> Ticket:
    """What Redis knows a delivery by."""
    number, entry, count, fields = taken
    return Ticket(int(number), entry.decode(), int(count), int(by_name(fields).get(b"n", 0)))


async def give_back(line: RedisLine, ticket: Ticket, delay: float) -> None:
    """Have a message delivered again in `delay` seconds, unless somebody else has it."""
    timers = line.timers(ticket.number)
    await line.connection.run(
        f"hand a message of {line.name} back",
        scripts.NACK,
        (timers.stream, timers.lease, timers.later, line.waiting, line.clock),
        (
            *(line.stream_group, line.group),
            *(ticket.number, ticket.entry, ticket.delivery),
            round(min(max(delay, 0.0), MAX_DELAY) * 1000),
        ),
    )
