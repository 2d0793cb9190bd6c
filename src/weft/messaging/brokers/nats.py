"""The broker in NATS JetStream.

A queue is a stream from which acknowledged messages vanish, with a consumer for each lane; a topic is a
stream that keeps messages by age and size, with a consumer for each group (and partition).
`model.message_subjects` has the names. Delays are NATS's own message schedules, at a time by the clock of who
enqueues.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Collection, Sequence

from weft.errors import InvalidRequest, QueueFull, Unavailable
from weft.messaging.broker import (
    MAX_DELAY,
    GroupSettings,
    Priority,
    QueueSettings,
    QueueStats,
    StoredMessage,
    TopicSettings,
    TopicStats,
)
from weft.messaging.brokers import nats_queues, nats_topics
from weft.messaging.brokers.nats_api import JetStreamApi
from weft.messaging.brokers.nats_consumer import NatsConsumer, group_consumer, queue_consumer
from weft.messaging.brokers.nats_streams import MAX_LENGTH
from weft.messaging.brokers.nats_wire import SCHEDULE, SCHEDULE_TARGET, SENT_AT, headers_of, schedule
from weft.messaging.message import Message
from weft.model.message_subjects import due_subject, lane_subject, later_stream, later_subject, topic_subject
from weft.model.names import check_name
from weft.model.subtopic import check_pattern, check_subtopic
from weft.store.nats_connection import NatsConnection

MAX_PEEK = 1000
_TOKEN_BYTES = 12
_GROUP = re.compile(r"[A-Za-z0-9_-]{1,128}")


class NatsBroker:
    """A BrokerAdmin in NATS; through a member's connection only what is the Broker's works."""

    def __init__(self, connection: NatsConnection, *, replicas: int = 1) -> None:
        """`connection` stays its owner's to close. `replicas` servers, or more, keep each stream."""
        self._api = JetStreamApi(connection)
        self._replicas = replicas
        self._consumers: set[NatsConsumer] = set()
        self._closed = False

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        """Put a message into a queue. Raises QueueFull, InvalidRequest, NotFound, Denied, Unavailable."""
        if not 0 <= delay <= MAX_DELAY:
            raise InvalidRequest(
                f"message {message.id} cannot be delayed by {delay} seconds: by 0 to {MAX_DELAY:.0f}"
            )
        self._check_open()
        check_name(queue, "queue")
        what = f"enqueue message {message.id} in queue {queue!r}"
        headers = headers_of(message)
        if not delay:
            await self._api.publish(what, lane_subject(queue, priority), message.body, headers)
            return
        await self._check_room(what, queue)
        now = time.time()
        headers[SENT_AT] = repr(now)
        headers[SCHEDULE] = schedule(now, delay)
        headers[SCHEDULE_TARGET] = due_subject(queue, priority)
        subject = later_subject(queue, secrets.token_hex(_TOKEN_BYTES))
        await self._api.publish(what, subject, message.body, headers)

    async def publish(self, topic: str, message: Message, *, subtopic: str = "", partition: int = 0) -> int:
        """Publish a message; return its sequence. Raises InvalidRequest, NotFound, Denied, Unavailable."""
        self._check_open()
        check_name(topic, "topic")
        check_subtopic(subtopic)
        what = f"publish message {message.id} in topic {topic!r}"
        subject = topic_subject(topic, partition, subtopic)
        return await self._api.publish(what, subject, message.body, headers_of(message))

    async def queue_consumer(self, queue: str) -> NatsConsumer:
        """Take messages out of a queue. Raises NotFound, Denied, Unavailable."""
        self._check_open()
        check_name(queue, "queue")
        return self._owned(await queue_consumer(self._api, queue))

    async def group_consumer(self, topic: str, group: str) -> NatsConsumer:
        """Take messages for a group out of a topic. Raises NotFound, Denied, Unavailable."""
        self._check_open()
        check_name(topic, "topic")
        _check_group(group)
        what = f"consume topic {topic!r} for group {group!r}"
        partitions = await nats_topics.partitions(self._api, what, topic)
        return self._owned(await group_consumer(self._api, topic, group, partitions))

    async def declare_queue(self, settings: QueueSettings) -> None:
        """Have a queue, or change it."""
        self._check_open()
        check_name(settings.name, "queue")
        await nats_queues.declare_queue(self._api, settings, self._replicas)

    async def remove_queue(self, queue: str) -> None:
        """Remove a queue with all it holds."""
        self._check_open()
        check_name(queue, "queue")
        await nats_queues.remove_queue(self._api, queue)

    async def declare_topic(self, settings: TopicSettings) -> None:
        """Have a topic, or change it. Raises Conflict for other partitions."""
        self._check_open()
        check_name(settings.name, "topic")
        await nats_topics.declare_topic(self._api, settings, self._replicas)

    async def remove_topic(self, topic: str) -> None:
        """Remove a topic with all it holds and its groups."""
        self._check_open()
        check_name(topic, "topic")
        await nats_topics.remove_topic(self._api, topic)

    async def declare_group(self, settings: GroupSettings) -> None:
        """Have a group, or change it. Raises InvalidRequest, NotFound."""
        self._check_open()
        check_name(settings.topic, "topic")
        _check_group(settings.name)
        check_pattern(settings.pattern)
        await nats_topics.declare_group(self._api, settings)

    async def remove_group(self, topic: str, group: str) -> None:
        """Remove a group."""
        self._check_open()
        check_name(topic, "topic")
        _check_group(group)
        await nats_topics.remove_group(self._api, topic, group)

    async def queue_stats(self, queue: str) -> QueueStats:
        """How a queue stands; a message that waits for its next delivery counts as under way."""
        self._check_open()
        check_name(queue, "queue")
        return await nats_queues.queue_stats(self._api, queue)

    async def topic_stats(self, topic: str) -> TopicStats:
        """How a topic and its groups stand."""
        self._check_open()
        check_name(topic, "topic")
        return await nats_topics.topic_stats(self._api, topic)

    async def peek(self, queue: str, *, limit: int, dead: bool = False) -> Sequence[StoredMessage]:
        """Up to `limit` (at most MAX_PEEK) of the oldest messages, by lane."""
        self._check_open()
        check_name(queue, "queue")
        return await nats_queues.peek(self._api, queue, min(limit, MAX_PEEK), dead=dead)

    async def redrive(self, queue: str, ids: Collection[str]) -> int:
        """Put dead letters of these ids back into their lanes; return how many. Raises QueueFull."""
        self._check_open()
        check_name(queue, "queue")
        return await nats_queues.redrive(self._api, queue, ids)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Throw away what waits, or the dead letters; how many. What waits for a next delivery stays."""
        self._check_open()
        check_name(queue, "queue")
        return await nats_queues.purge(self._api, queue, dead=dead)

    async def aclose(self) -> None:
        """End the consumers."""
        self._closed = True
        for each in self._consumers:
            await each.aclose()
        self._consumers.clear()

    async def _check_room(self, what: str, queue: str) -> None:
        """Raise QueueFull where as many messages are delayed as may be: NATS does not see to it."""
        info = await self._api.ask(what, f"STREAM.INFO.{later_stream(queue)}")
        limit = (info["config"].get("metadata") or {}).get(MAX_LENGTH, "")
        if limit.isdecimal() and info["state"]["messages"] >= int(limit):
            raise QueueFull(
                f"cannot {what}: {limit} messages are delayed, as many as may be; try again later"
            )

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this broker was closed; open another")

    def _owned(self, consumer: NatsConsumer) -> NatsConsumer:
        self._consumers.add(consumer)
        return consumer


def _check_group(name: str) -> None:
    if not _GROUP.fullmatch(name):
        raise InvalidRequest(f"{name[:128]!r} is no name of a group: use letters, digits, `-` and `_`")
