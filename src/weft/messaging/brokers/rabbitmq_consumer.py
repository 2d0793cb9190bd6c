"""Taking messages out of a queue, lane by lane, or out of a group without partitions."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from aiormq.abc import AbstractChannel, DeliveredMessage

from weft.errors import InvalidRequest
from weft.messaging.brokers.rabbitmq_batch import ready_in, tag_of, take_ready
from weft.messaging.brokers.rabbitmq_delivery import RabbitDelivery
from weft.messaging.brokers.rabbitmq_puller import Puller
from weft.messaging.brokers.rabbitmq_source import HeldMessage, Source, Visibility
from weft.messaging.brokers.rabbitmq_wire import parcel_of

_EARLY = 0.02
"""Seconds before its time at which a delayed message is on time."""

logger = logging.getLogger(__name__)


class LaneConsumer(Puller):
    """Takes messages out of one queue or group.

    It asks how many messages wait in each lane, and takes as many as it may. Where none wait it consumes one
    message of every lane; of those that come at the same moment, it gives back what it may not take.
    """

    def __init__(self, source: Source, visibility: Visibility, closed: Callable[[Puller], None]) -> None:
        """`closed` is called at the end."""
        super().__init__(source, closed)
        self._visibility = visibility
        self._channel: AbstractChannel | None = None

    async def _end(self) -> None:
        if self._source.link.is_open(self._channel):
            await self._channel.close()

    async def _take(self, limit: int, wait: float) -> Sequence[RabbitDelivery]:
        until = time.monotonic() + wait
        while True:
            with self._source.link.translated(f"pulling from {self._source.line.what}"):
                await self._visibility.renew()
                channel = await self._open()
                messages: Sequence[DeliveredMessage] = await self._take_ready(channel, limit)
                left = until - time.monotonic()
                if not messages and left > 0 and not self._unwanted:
                    messages = await self._wait_for_some(channel, limit, left)
                found = [await self._delivery(each) for each in messages]
            deliveries = [each for each in found if each is not None]
            if deliveries or self._unwanted or time.monotonic() >= until:
                return deliveries

    async def _take_ready(self, channel: AbstractChannel, limit: int) -> list[DeliveredMessage]:
        messages: list[DeliveredMessage] = []
        for lane in self._source.line.lanes:
            async with asyncio.timeout(self._source.link.timeout):
                ready = await ready_in(channel, lane)
                if ready:
                    messages += await take_ready(channel, lane, min(ready, limit - len(messages)))
            if len(messages) >= limit:
                break
        return messages

    async def _wait_for_some(
        self, channel: AbstractChannel, limit: int, wait: float
    ) -> Sequence[DeliveredMessage]:
        self._inbox.empty()
        consuming: list[str | None] = []
        async with asyncio.timeout(self._source.link.timeout):
            await channel.basic_qos(prefetch_count=1)
            for lane in self._source.line.lanes:
                answer = await channel.basic_consume(lane, self._inbox.take)
                consuming.append(answer.consumer_tag)
        if not self._inbox.messages and not self._unwanted:
            with suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._inbox.more()
        async with asyncio.timeout(self._source.link.timeout):
            for tag in consuming:
                await channel.basic_cancel(str(tag))
            await asyncio.sleep(0)
            messages = sorted(self._inbox.empty(), key=lambda each: consuming.index(each.consumer_tag))
            for surplus in messages[limit:]:
                await channel.basic_nack(tag_of(surplus), requeue=True)
        return messages[:limit]

    async def _delivery(self, message: DeliveredMessage) -> RabbitDelivery | None:
        """What to hand out; None if it is nothing for the caller."""
        try:
            parcel = parcel_of(message)
        except InvalidRequest as error:
            logger.warning("%s: a message was thrown away: %s", self._source.line.what, error.detail)
            await message.channel.basic_ack(tag_of(message))
            return None
        held = HeldMessage(self._source, message, parcel, self._work)
        early = parcel.due - time.time()
        if early > _EARLY:
            held.go_on_waiting(early)
            return None
        return RabbitDelivery(parcel, parcel.lane, held, self._visibility.seconds)

    async def _open(self) -> AbstractChannel:
        if not self._source.link.is_open(self._channel):
            channel = await self._source.link.channel()
            channel.on_consumer_cancel_callbacks.add(self._inbox.disturb)
            channel.closing.add_done_callback(self._inbox.disturb)
            self._channel = channel
        return self._channel
