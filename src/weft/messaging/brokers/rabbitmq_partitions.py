"""Taking messages for a group out of a topic with partitions, of each of which one is under way at a time.

RabbitMQ sees to that: each partition has a queue with a single active consumer, which gets one message. Each
consumer of ours has a channel for each partition. It consumes a partition only while it pulls and while it
works on a message of it; when that is done with, its consumer is cancelled first, so that whoever waits is
next. A message that is to come again goes back to the head of its queue by the end of the channel, in one go.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass

from aiormq.abc import AbstractChannel, DeliveredMessage
from aiormq.exceptions import ChannelInvalidStateError

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, NotFound, Unavailable
from weft.messaging.brokers.rabbitmq_batch import Inbox, ready_in, tag_of
from weft.messaging.brokers.rabbitmq_delivery import RabbitDelivery
from weft.messaging.brokers.rabbitmq_names import replay_of
from weft.messaging.brokers.rabbitmq_puller import Puller
from weft.messaging.brokers.rabbitmq_replay import END
from weft.messaging.brokers.rabbitmq_source import Source, Visibility
from weft.messaging.brokers.rabbitmq_wire import Parcel, mark_of, parcel_of

_AT_ONCE = 0.1
"""Seconds in which a message of which RabbitMQ said that it is there has come."""

logger = logging.getLogger(__name__)


class Partition:
    """One partition, as one consumer sees it. Its methods raise the client's errors."""

    def __init__(self, source: Source, number: int, inbox: Inbox) -> None:
        """`inbox` is disturbed when something happens."""
        self._source = source
        self._number = number
        self._inbox = inbox
        self._live = source.line.lanes[number]
        self._queue = replay_of(self._live)
        self._channel: AbstractChannel | None = None
        self._tag: str | None = None
        self.arrived: DeliveredMessage | None = None
        """What RabbitMQ has delivered and nobody settled."""
        self.taken = False
        """Whether that is in somebody's hands."""

    async def open(self) -> None:
        """Have a channel, and know from which queue to take: the past comes first."""
        if self._source.link.is_open(self._channel):
            return
        self._forget()
        if self._queue != self._live:
            try:
                async with self._source.link.errand("looking for a replay") as channel:
                    await ready_in(channel, self._queue)
            except NotFound:
                self._queue = self._live
        channel = await self._source.link.channel()
        channel.on_consumer_cancel_callbacks.add(self._on_removed)
        channel.closing.add_done_callback(self._inbox.disturb)
        await channel.basic_qos(prefetch_count=1)
        self._channel = channel

    async def is_free(self) -> bool:
        """Whether a message waits, and nobody consumes."""
        answer = await self._open_channel.queue_declare(self._queue, passive=True)
        return bool(answer.message_count) and not answer.consumer_count

    async def listen(self) -> None:
        """Have a message delivered as soon as there is one and it is our turn."""
        if self._tag is None:
            answer = await self._open_channel.basic_consume(self._queue, self._on_message)
            self._tag = answer.consumer_tag

    async def stop_listening(self) -> None:
        """Have none delivered, unless one has arrived.

        If its consumer were cancelled, one that arrives just then were ours, and the next somebody else's.
        """
        if self._tag is not None and self.arrived is None:
            await self.release()

    async def release(self) -> None:
        """Put what has arrived back to the head of the queue, and let others have their turn."""
        channel = self._channel
        if self._source.link.is_open(channel):
            await channel.close()
        self._forget()

    async def finish(self) -> None:
        """Be done with what has arrived, and let others have their turn."""
        channel, message, tag = self._open_channel, self.arrived, self._tag
        self._forget(channel)
        if tag is not None:
            await channel.basic_cancel(tag, nowait=True)
        if message is not None:
            await channel.basic_ack(tag_of(message), wait=False)

    async def end_replay(self) -> None:
        """All of the past is done with."""
        queue = self._queue
        await self.finish()
        if queue != self._live:
            await self._open_channel.queue_delete(queue)
        self._queue = self._live

    @property
    def _open_channel(self) -> AbstractChannel:
        if self._channel is None:
            raise ChannelInvalidStateError("closed")
        return self._channel

    async def _on_message(self, message: DeliveredMessage) -> None:
        self.arrived = message
        self._inbox.disturb()

    def _on_removed(self, _: object) -> None:
        # What we consumed is gone: the past, because it is over, or the group.
        self._tag = None
        self._queue = self._live
        self._inbox.disturb()

    def _forget(self, channel: AbstractChannel | None = None) -> None:
        self._channel = channel
        self._tag = None
        self.arrived = None
        self.taken = False
        self._inbox.disturb()


@dataclass(frozen=True, slots=True)
class HeldPartition:
    """A message of a partition, not settled yet."""

    source: Source
    partition: Partition
    delivered: DeliveredMessage
    parcel: Parcel
    later: TaskOwner

    @property
    def what(self) -> str:
        """What it is out of."""
        return self.source.line.what

    @property
    def lost(self) -> bool:
        """Whether the channel is gone, so that it comes again."""
        return (
            not self.source.link.is_open(self.delivered.channel)
            or self.partition.arrived is not self.delivered
        )

    async def check(self) -> None:
        """Raise Unavailable if RabbitMQ cannot be reached."""
        await self.source.link.reach()

    async def finish(self) -> None:
        """It is done with."""
        with self._translated("acknowledging"):
            await self.partition.finish()

    async def give_back(self, delay: float) -> None:
        """It is to come again in so many seconds: kept until then, since those behind it have to wait."""
        if delay > 0:
            self.later.start(self._return(delay), name=f"message {self.parcel.message.id} waits")
            return
        with self._translated("handing back"):
            await self.partition.release()

    async def bury(self, reason: str) -> None:  # noqa: ARG002 -- of groups nobody asks for it
        """Topics have no dead letters."""
        raise InvalidRequest(
            f"message {self.parcel.message.id}: {self.what} has no dead letters; publish it elsewhere"
        )

    def time_out(self) -> None:
        """Have it come again."""
        self.later.start(self._return(0.0), name=f"message {self.parcel.message.id} timed out")

    async def _return(self, delay: float) -> None:
        await asyncio.sleep(delay)
        if not self.lost:
            with suppress(Unavailable):  # then it is lost, and comes again by itself
                await self.give_back(0.0)

    def _translated(self, what: str) -> AbstractContextManager[None]:
        return self.source.link.translated(f"{what} message {self.parcel.message.id} of {self.what}")


class PartitionConsumer(Puller):
    """Takes messages out of all partitions."""

    def __init__(self, source: Source, visibility: Visibility, closed: Callable[[Puller], None]) -> None:
        """`closed` is called at the end."""
        super().__init__(source, closed)
        self._visibility = visibility
        self._partitions = [
            Partition(source, number, self._inbox) for number in range(len(source.line.lanes))
        ]

    async def _end(self) -> None:
        for each in self._partitions:
            await each.release()

    async def _take(self, limit: int, wait: float) -> Sequence[RabbitDelivery]:
        until = time.monotonic() + wait
        while True:
            with self._source.link.translated(f"pulling from {self._source.line.what}"):
                await self._visibility.renew()
                idle = await self._idle()
                await self._listen_at_once(idle, limit)
                left = until - time.monotonic()
                if not any(each.arrived for each in idle) and left > 0 and not self._unwanted:
                    await self._listen_for_some(idle, left)
                async with asyncio.timeout(self._source.link.timeout):
                    for each in idle:
                        await each.stop_listening()
                deliveries = await self._deliveries(idle, limit)
            if deliveries or self._unwanted or time.monotonic() >= until:
                return deliveries

    async def _idle(self) -> Sequence[Partition]:
        """The partitions of which we have no message, each time another one first."""
        self._partitions.append(self._partitions.pop(0))
        idle = [each for each in self._partitions if not each.taken]
        for each in idle:
            await each.open()
        return idle

    async def _listen_at_once(self, idle: Sequence[Partition], limit: int) -> None:
        """Where messages wait and nobody consumes: take them."""
        listening: list[Partition] = []
        async with asyncio.timeout(self._source.link.timeout):
            for each in idle:
                if len(listening) < limit and await each.is_free():
                    await each.listen()
                    listening.append(each)
        with suppress(TimeoutError):
            async with asyncio.timeout(_AT_ONCE):
                while not all(each.arrived for each in listening):
                    await self._inbox.more()

    async def _listen_for_some(self, idle: Sequence[Partition], wait: float) -> None:
        """Be woken by the first that comes, that is handed on to us, or that we are done with."""
        self._inbox.empty()
        # What woke nobody until now: a message that was done with since we looked what is idle.
        if any(not each.taken and each not in idle for each in self._partitions):
            return
        async with asyncio.timeout(self._source.link.timeout):
            for each in idle:
                await each.listen()
        if any(each.arrived for each in idle) or self._unwanted:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._inbox.more()

    async def _deliveries(self, idle: Sequence[Partition], limit: int) -> list[RabbitDelivery]:
        deliveries: list[RabbitDelivery] = []
        for each in idle:
            if each.arrived is None:
                continue
            if mark_of(each.arrived) == END:
                await each.end_replay()
            elif len(deliveries) < limit:
                delivery = await self._delivery(each, each.arrived)
                deliveries += [delivery] if delivery else []
            else:
                await each.release()
        return deliveries

    async def _delivery(self, partition: Partition, message: DeliveredMessage) -> RabbitDelivery | None:
        try:
            parcel = parcel_of(message)
        except InvalidRequest as error:
            logger.warning("%s: a message was thrown away: %s", self._source.line.what, error.detail)
            await partition.finish()
            return None
        partition.taken = True
        held = HeldPartition(self._source, partition, message, parcel, self._work)
        return RabbitDelivery(parcel, parcel.lane, held, self._visibility.seconds)
