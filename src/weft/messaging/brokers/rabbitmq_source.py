"""What a consumer takes messages out of, and how its messages are settled."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from aiormq.abc import DeliveredMessage

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, MeshError, NotFound, Unavailable
from weft.messaging.broker import DEAD_REASON_LENGTH
from weft.messaging.brokers.rabbitmq_batch import tag_of
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.brokers.rabbitmq_names import Line
from weft.messaging.brokers.rabbitmq_publisher import Publisher, Unroutable
from weft.messaging.brokers.rabbitmq_settings import Document, Settings
from weft.messaging.brokers.rabbitmq_wire import Parcel

_SETTINGS_AGE = 15.0

_PATIENCE = 5.0
"""Seconds to wait before something that failed is tried again."""


@dataclass(frozen=True, slots=True)
class Source:
    """A queue or a group."""

    line: Line
    dead: str
    """The queue of its dead letters; empty if it is a group."""
    link: Link
    """Over which messages are taken."""
    publisher: Publisher
    settings: Settings
    visibility_in: Callable[[Document], float]
    """The visibility timeout, in seconds, according to its settings. Raises NotFound if it is not in them."""


class Visibility:
    """The visibility timeout of a source, looked up now and then."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._read = -math.inf
        self.seconds = 0.0
        """As it was last time."""

    async def renew(self) -> None:
        """Look it up, if that was not done for a while. Raises NotFound, Unavailable, Denied."""
        now = time.monotonic()
        if now - self._read > _SETTINGS_AGE:
            line = self._source.line
            self.seconds = self._source.visibility_in(
                await self._source.settings.read(line.settings, line.what)
            )
            self._read = now


@dataclass(frozen=True, slots=True)
class HeldMessage:
    """A message out of a queue or an unordered group, not settled yet."""

    source: Source
    delivered: DeliveredMessage
    parcel: Parcel
    later: TaskOwner
    """Of what is done about it when its time is up."""

    @property
    def what(self) -> str:
        """What it is out of."""
        return self.source.line.what

    @property
    def lost(self) -> bool:
        """Whether the channel is gone, so that it comes again."""
        return not self.source.link.is_open(self.delivered.channel)

    async def check(self) -> None:
        """Raise Unavailable if RabbitMQ cannot be reached."""
        await self.source.link.reach()

    async def finish(self) -> None:
        """It is done with."""
        with self._translated("acknowledging"):
            await self.delivered.channel.basic_ack(self._tag, wait=False)

    async def give_back(self, delay: float) -> None:
        """It is to come again in so many seconds."""
        if delay > 0:
            counted = self.parcel.anew(deliveries=self.parcel.delivered + 1)
            await self.source.publisher.put_later(
                self.source.line, counted, delay, what=f"delaying message {self.parcel.message.id}"
            )
            await self.finish()
            return
        with self._translated("handing back"):
            await self.delivered.channel.basic_nack(self._tag, requeue=True, wait=False)

    async def bury(self, reason: str) -> None:
        """It is a dead letter."""
        if not self.source.dead:
            raise InvalidRequest(
                f"message {self.parcel.message.id}: {self.what} has no dead letters; publish it elsewhere"
            )
        letter = self.parcel.anew(deliveries=self.parcel.delivered + 1, reason=reason[:DEAD_REASON_LENGTH])
        what = f"putting message {self.parcel.message.id} to the dead letters of {self.what}"
        try:
            await self.source.publisher.put(self.source.dead, letter, what=what)
        except Unroutable:
            raise NotFound(f"{what}: it is not there (any more); declare it") from None
        await self.finish()

    def time_out(self) -> None:
        """Have it come again."""
        self.later.start(self._return(), name=f"message {self.parcel.message.id} timed out")

    def go_on_waiting(self, delay: float) -> None:
        """It came early: let it wait for the rest of its time."""
        self.later.start(self._wait_on(delay), name=f"message {self.parcel.message.id} goes on waiting")

    async def _wait_on(self, delay: float) -> None:
        what = f"delaying message {self.parcel.message.id}"
        try:
            await self.source.publisher.put_later(self.source.line, self.parcel, delay, what=what)
            await self.finish()
        except MeshError:
            await asyncio.sleep(_PATIENCE)
            await self._return()

    async def _return(self) -> None:
        with suppress(Unavailable):  # then it is lost, and comes again by itself
            await self.give_back(0.0)

    @property
    def _tag(self) -> int:
        return tag_of(self.delivered)

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return self.source.link.translated(f"{what} message {self.parcel.message.id} of {self.what}")
