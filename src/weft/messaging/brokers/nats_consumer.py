"""Consumers of queues and groups in NATS, and what they deliver."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence

import nats.errors
from nats.aio.msg import Msg

from weft.errors import InvalidRequest
from weft.messaging.brokers.nats_api import JetStreamApi
from weft.messaging.brokers.nats_pull import NatsPuller, Source
from weft.messaging.brokers.nats_wire import (
    ACK,
    IN_PROGRESS,
    NAK,
    NATS_MESSAGE_ID,
    REASON,
    SENT_AT,
    Place,
    headers_of,
    message_of,
    parse_reply,
    reason_header,
    sent_at,
)
from weft.messaging.message import Message
from weft.model.message_subjects import (
    LANES,
    dead_subject,
    group_consumers,
    lane_consumer,
    later_stream,
    queue_stream,
    topic_stream,
    topic_subject,
)

logger = logging.getLogger(__name__)

_SECOND = 1_000_000_000


class NatsDelivery:
    """A message in a consumer's hands."""

    __slots__ = (
        "_api",
        "_done",
        "_queue",
        "_reply",
        "deliveries",
        "lane",
        "message",
        "sent_at",
        "sequence",
        "subtopic",
    )

    def __init__(
        self,
        api: JetStreamApi,
        reply: str,
        message: Message,
        place: Place,
        *,
        queue: str = "",
        lane: int = 0,
        subtopic: str = "",
        sent_at: float,
    ) -> None:
        """`queue` is empty for messages of topics; `reply` is where NATS takes what becomes of it."""
        self._api = api
        self._reply = reply
        self._queue = queue
        self._done = False
        self.message = message
        self.lane = lane
        self.subtopic = subtopic
        self.deliveries = place.deliveries
        self.sequence = 0 if queue else place.sequence
        self.sent_at = sent_at

    async def ack(self) -> None:
        """It is done with."""
        await self._settle(ACK)

    async def nack(self, delay: float = 0.0) -> None:
        """Have it delivered again in `delay` seconds."""
        how = b" " + json.dumps({"delay": int(delay * _SECOND)}).encode() if delay > 0 else b""
        await self._settle(NAK + how)

    async def extend(self) -> None:
        """Have the visibility timeout begin anew. NATS does not say when it is too late."""
        if not self._done:
            await self._tell(IN_PROGRESS)

    async def dead_letter(self, reason: str) -> None:
        """Move it to the queue's dead letters."""
        if not self._queue:
            raise InvalidRequest(
                f"message {self.message.id} is a topic's, which has no dead letters; publish it elsewhere"
            )
        if self._done:
            return
        place = parse_reply(self._reply)
        headers = headers_of(self.message) | {
            REASON: reason_header(reason),
            SENT_AT: repr(self.sent_at),
            # After a crash in between it comes again, and is a dead letter once all the same.
            NATS_MESSAGE_ID: f"{place.stream}.{place.sequence}" if place else self.message.id,
        }
        what = f"put message {self.message.id} among the dead letters of queue {self._queue!r}"
        await self._api.publish(what, dead_subject(self._queue, self.lane), self.message.body, headers)
        await self._settle(ACK)

    async def _settle(self, how: bytes) -> None:
        if not self._done:
            await self._tell(how)
            self._done = True

    async def _tell(self, what: bytes) -> None:
        connection = self._api.connection
        client = connection.sender
        try:
            if client is None:
                async with asyncio.timeout(connection.timeout):
                    client = await connection.client()
            await client.publish(self._reply, what)
        except (TimeoutError, nats.errors.Error) as error:
            raise connection.unavailable(
                f"tell what became of message {self.message.id}, which comes again", error
            ) from error


class NatsConsumer:
    """Takes messages out of one queue or group."""

    def __init__(self, puller: NatsPuller[NatsDelivery]) -> None:
        self._puller = puller

    async def pull(self, limit: int, *, wait: float) -> Sequence[NatsDelivery]:
        """Up to `limit` messages, as soon as there is one."""
        return await self._puller.pull(limit, wait=wait)

    async def aclose(self) -> None:
        """Stop."""
        await self._puller.aclose()


async def queue_consumer(api: JetStreamApi, queue: str) -> NatsConsumer:
    """Take messages out of a queue. Raises NotFound, Denied or Unavailable."""

    def deliver(given: Msg, place: Place) -> NatsDelivery | None:
        message = _read(given, place)
        if message is None:
            return None
        lane = given.subject[-1]
        return NatsDelivery(
            api,
            given.reply,
            message,
            place,
            queue=queue,
            lane=int(lane) if lane.isdecimal() else 0,
            sent_at=sent_at(given.headers, place.stored_at),
        )

    rungs = [
        [
            Source(queue_stream(queue), lane_consumer(lane)),
            Source(later_stream(queue), lane_consumer(lane), belled=True),
        ]
        for lane in LANES
    ]
    puller = NatsPuller(api.connection, rungs, deliver, f"consume queue {queue!r}")
    await puller.open()
    return NatsConsumer(puller)


async def group_consumer(api: JetStreamApi, topic: str, group: str, partitions: int) -> NatsConsumer:
    """Take messages for a group out of a topic that has so many partitions. Raises as `queue_consumer`."""
    stream = topic_stream(topic)
    names = group_consumers(group, partitions)
    partition_of_consumer = {name: number for number, name in enumerate(names)}

    def deliver(given: Msg, place: Place) -> NatsDelivery | None:
        message = _read(given, place)
        if message is None:
            return None
        partition = partition_of_consumer[place.consumer]
        return NatsDelivery(
            api,
            given.reply,
            message,
            place,
            lane=partition,
            subtopic=given.subject[len(topic_subject(topic, partition)) + 1 :],
            sent_at=sent_at(given.headers, place.stored_at),
        )

    sources = [Source(stream, name, ordered=bool(partitions)) for name in names]
    puller = NatsPuller(api.connection, [sources], deliver, f"consume topic {topic!r} for group {group!r}")
    await puller.open()
    return NatsConsumer(puller)


def _read(given: Msg, place: Place) -> Message | None:
    """The message; None if it is none that anybody could read: it is thrown away."""
    try:
        return message_of(given.headers, given.data)
    except InvalidRequest as error:
        logger.warning(
            "message %d of stream %s is thrown away: %s", place.sequence, place.stream, error.detail
        )
        return None
