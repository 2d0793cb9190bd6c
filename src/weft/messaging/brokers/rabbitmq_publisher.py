"""Putting messages into RabbitMQ: always confirmed, never into nowhere."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict

from aiormq.abc import AbstractChannel
from aiormq.exceptions import ChannelInvalidStateError, DeliveryError, PublishError
from pamqp.commands import Basic

from weft.errors import MeshError, NotFound, Unavailable
from weft.messaging.brokers.rabbitmq_delays import working_level
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.brokers.rabbitmq_names import Line, Names
from weft.messaging.brokers.rabbitmq_quorum import QUORUM, have_for_good
from weft.messaging.brokers.rabbitmq_settings import Settings
from weft.messaging.brokers.rabbitmq_wire import Parcel, properties

_RENEWAL = 3600.0
_LONGEST_KEPT = 2**32 - 1
_GRACE = 7 * 86_400_000
"""Milliseconds that a queue of those that wait is kept after the last was due: its lane may be full."""


class Refused(MeshError):
    """A queue is full, or does not work."""


class Unroutable(NotFound):
    """No queue is there for it."""


class Unanswered(Unavailable):
    """RabbitMQ took the message, or not: it did not say so in time."""


class Publisher:
    """Publishes over a connection of its own: an alarm of RabbitMQ blocks those that publish, all of them."""

    def __init__(self, link: Link, names: Names, settings: Settings) -> None:
        self._link = link
        self._names = names
        self._settings = settings
        self._channel: AbstractChannel | None = None
        self._opening = asyncio.Lock()
        self._levels: dict[tuple[str, int], float] = {}
        self._making: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        # A RabbitMQ that was killed while it made a queue has one afterwards that answers nobody.
        self._broken: set[tuple[str, int]] = set()

    async def publish(
        self, exchange: str, key: str, body: bytes, headers: Basic.Properties, *, what: str
    ) -> None:
        """Publish, and wait until it is stored. Raises Unroutable, Refused, Unavailable, Denied, NotFound.

        `what` says in errors what was to be done.
        """
        with self._link.translated(what):
            try:
                async with asyncio.timeout(self._link.timeout):
                    channel = await self._open()
                    await self._link.ready()
                    await channel.basic_publish(
                        body, exchange=exchange, routing_key=key, properties=headers, mandatory=True
                    )
            except PublishError:
                raise Unroutable(f"{what}: there is no queue for it; declare it") from None
            except DeliveryError as error:
                raise Refused(f"{what}: RabbitMQ refused it") from error
            except ChannelInvalidStateError:
                self._channel = None
                raise
            except TimeoutError:
                if await self._link.blocked():
                    raise Unavailable(
                        f"{what}: {self._link.place} takes no messages: it has little memory or disk left"
                    ) from None
                self._link.drop()
                raise Unanswered(
                    f"{what}: {self._link.place} did not answer within {self._link.timeout:g} s"
                ) from None

    async def put(self, queue: str, parcel: Parcel, *, what: str) -> None:
        """Put a message into that queue of RabbitMQ. Raises Unroutable, Refused, Unavailable, Denied."""
        await self.publish("", queue, parcel.message.body, properties(parcel), what=what)

    async def put_later(self, line: Line, parcel: Parcel, delay: float, *, what: str) -> None:
        """Put a message into its lane in so many seconds. Raises NotFound, Unavailable, Denied.

        It may get there early, with `due` in the future; whoever finds it there calls this again.
        """
        parcel = parcel.anew(deliveries=parcel.delivered, due=time.time() + delay, reason="")
        milliseconds = working_level(delay, lambda level: (line.base, level) not in self._broken)
        key = line.delay_key(milliseconds, parcel.lane)
        for attempt in (1, 2):
            await self._have_level(line, milliseconds, what=what)
            try:
                await self.publish(
                    self._names.delays, key, parcel.message.body, properties(parcel), what=what
                )
            except Unroutable:
                # It expired, or its queue was removed and is perhaps there again.
                self._levels.pop((line.base, milliseconds), None)
                if attempt > 1:
                    raise NotFound(f"{what}: {line.what} is not there; declare it") from None
            except Unanswered:
                self._broken.add((line.base, milliseconds))
                raise
            else:
                return

    async def _have_level(self, line: Line, milliseconds: int, *, what: str) -> None:
        """Declare the queue for a delay, now and then again: it expires without."""
        async with self._making[line.base, milliseconds]:
            if self._levels.get((line.base, milliseconds), -_RENEWAL) + _RENEWAL <= time.monotonic():
                await self._make_level(line, milliseconds, what=what)

    async def _make_level(self, line: Line, milliseconds: int, *, what: str) -> None:
        now = time.monotonic()
        await self._settings.note_level(line, milliseconds)
        queue = line.delay(milliseconds)
        # Another process may have made it a moment ago, and have died before it was there for good.
        is_new = (line.base, milliseconds) not in self._levels or not await self._is_there(queue, what)
        async with self._link.errand(what) as channel:
            await channel.queue_declare(
                queue,
                durable=True,
                arguments={
                    **QUORUM,
                    "x-message-ttl": milliseconds,
                    "x-expires": min(milliseconds + int(_RENEWAL * 1000) + _GRACE, _LONGEST_KEPT),
                    "x-dead-letter-exchange": self._names.due,
                    "x-dead-letter-strategy": "at-least-once",
                    "x-overflow": "reject-publish",
                },
            )
            await channel.queue_bind(queue, self._names.delays, line.delay_key(milliseconds, "*"))
            if is_new:
                await have_for_good(channel, queue)
        self._levels[line.base, milliseconds] = now

    async def _is_there(self, queue: str, what: str) -> bool:
        try:
            async with self._link.errand(what) as channel:
                await channel.queue_declare(queue, passive=True)
        except NotFound:
            return False
        return True

    async def _open(self) -> AbstractChannel:
        async with self._opening:
            if not self._link.is_open(self._channel):
                self._channel = await self._link.channel(confirms=True)
            return self._channel
