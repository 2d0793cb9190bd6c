"""RabbitMQ as broker: quorum queues, streams, topic exchanges; RabbitMQ 3.10 or newer.

It is aiormq, of which aio-pika is made, that speaks AMQP here: channels, consumers and confirmations are
handled by what a message's state needs, which leaves nothing for a layer above it to do.

What RabbitMQ needs: a user who may configure, write and read what begins with the prefix (and `amq.default`);
to change limits and to count messages under way, the management plugin and the tag `policymaker`. Its
`consumer_timeout` (30 minutes, unless configured) must be longer than one attempt may take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Self

from yarl import URL

from weft.errors import InvalidRequest, NotFound, QueueFull, Unavailable
from weft.messaging.broker import (
    MAX_DELAY,
    Consumer,
    GroupSettings,
    Priority,
    QueueSettings,
    QueueStats,
    StoredMessage,
    TopicSettings,
    TopicStats,
)
from weft.messaging.brokers.rabbitmq_consumer import LaneConsumer
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.brokers.rabbitmq_management import Management
from weft.messaging.brokers.rabbitmq_names import Line, Names, routing_key
from weft.messaging.brokers.rabbitmq_partitions import PartitionConsumer
from weft.messaging.brokers.rabbitmq_publisher import Publisher, Refused, Unroutable
from weft.messaging.brokers.rabbitmq_puller import Puller
from weft.messaging.brokers.rabbitmq_queues import Queues
from weft.messaging.brokers.rabbitmq_settings import Document, Settings
from weft.messaging.brokers.rabbitmq_source import Source, Visibility
from weft.messaging.brokers.rabbitmq_topics import Topics
from weft.messaging.brokers.rabbitmq_wire import new_parcel, properties
from weft.messaging.message import Message
from weft.model.names import check_name
from weft.model.subtopic import check_pattern, check_subtopic

MAX_PEEK = 1000

# What every RabbitMQ has, and takes from loopback only.
_DEFAULT_USER = "guest"

_GROUP = re.compile(r"[A-Za-z0-9_-]{1,128}")


class RabbitBroker:
    """A BrokerAdmin over RabbitMQ."""

    def __init__(self, reading: Link, publishing: Link, names: Names, management: Management | None) -> None:
        """To be made by `connect`."""
        self._reading = reading
        self._publishing = publishing
        self._names = names
        self._management = management
        self._settings = Settings(reading, publishing)
        self._publisher = Publisher(publishing, names, self._settings)
        # Publishing to a topic that was removed ends the channel for all that is under way on it.
        self._events = Publisher(publishing, names, self._settings)
        self._queues = Queues(reading, names, self._settings, self._publisher, management)
        self._topics = Topics(reading, names, self._settings, self._publisher, self._queues, management)
        self._partitions: dict[str, int] = {}
        self._consumers: set[Puller] = set()
        self._closed = False

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        username: str = "",
        password: str = "",
        management_url: str | None = None,
        timeout: float = 10.0,
        prefix: str = "weft",
    ) -> Self:
        """Connect. Raises Unavailable, Denied, and InvalidRequest for a URL that is none of RabbitMQ's.

        `url` is `amqp://host:5672/vhost` or `amqps://…`, without user and password; an empty user is
        RabbitMQ's own `guest`. `management_url` is its management plugin's; `timeout`: seconds in which it
        must answer; `prefix` begins the names of all that is made there.
        """
        parsed = URL(url)
        if parsed.scheme not in {"amqp", "amqps"} or not parsed.host:
            raise InvalidRequest(f"{parsed.scheme!r} is no scheme of RabbitMQ's: use amqp:// or amqps://")
        username, password = (username, password) if username else (_DEFAULT_USER, _DEFAULT_USER)
        parsed = parsed.with_user(username).with_password(password)
        management = None
        if management_url is not None:
            management = Management(
                management_url,
                username=username,
                password=password,
                vhost=parsed.path.removeprefix("/") or "/",
                timeout=timeout,
            )
        reading = Link(parsed, name="weft", timeout=timeout)
        publishing = Link(parsed, name="weft publishing", timeout=timeout)
        broker = cls(reading, publishing, Names(prefix), management)
        try:
            await reading.reach()
        except BaseException:
            await broker.aclose()
            raise
        return broker

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        """Put a message into a queue. Raises QueueFull, InvalidRequest, NotFound."""
        if not 0 <= delay <= MAX_DELAY:
            raise InvalidRequest(
                f"message {message.id} cannot be delayed by {delay} seconds: by 0 to {MAX_DELAY:.0f}"
            )
        self._check_open()
        check_name(queue, "queue")
        line = self._names.queue(queue)
        parcel = new_parcel(message, lane=priority.value)
        what = f"putting message {message.id} into {line.what}"
        if delay:
            await self._publisher.put_later(line, parcel, delay, what=what)
            return
        try:
            await self._publisher.put(line.lanes[priority.value], parcel, what=what)
        except Refused:
            raise QueueFull(
                f"{line.what} is full: try again later, or have more consumers", retry_after=1.0
            ) from None
        except Unroutable:
            raise NotFound(f"there is no {line.what}: declare it") from None

    async def publish(self, topic: str, message: Message, *, subtopic: str = "", partition: int = 0) -> int:
        """Publish a message. Returns 0: RabbitMQ does not tell sequences. Raises InvalidRequest, NotFound."""
        check_subtopic(subtopic)
        check_name(topic, "topic")
        self._check_open()
        partitions = await self._partitions_of(topic)
        if not 0 <= partition < max(partitions, 1):
            raise InvalidRequest(f"topic {topic!r} has {partitions} partitions, no {partition}")
        parcel = new_parcel(message, lane=partition, subtopic=subtopic)
        what = f"publishing message {message.id} to topic {topic!r}"
        try:
            await self._events.publish(
                self._names.topic(topic),
                routing_key(subtopic, partition),
                message.body,
                properties(parcel),
                what=what,
            )
        except Refused as error:
            raise Unavailable(error.detail) from error
        except (Unroutable, NotFound) as error:
            self._partitions.pop(topic, None)
            await self._partitions_of(topic)
            raise Unavailable(f"{what}: it was being removed and declared again") from error
        return 0

    async def queue_consumer(self, queue: str) -> Consumer:
        """Take messages out of a queue. Raises NotFound."""
        check_name(queue, "queue")
        source = self._source(self._names.queue(queue), self._names.dead(queue), _queue_visibility)
        visibility = Visibility(source)
        await visibility.renew()
        return self._kept(LaneConsumer(source, visibility, self._consumers.discard))

    async def group_consumer(self, topic: str, group: str) -> Consumer:
        """Take messages for a group out of a topic. Raises NotFound."""
        self._check_open()
        check_name(topic, "topic")
        _check_group(group)
        known = await self._settings.read(self._names.topic_settings(topic), f"topic {topic!r}")
        partitions: int = known["partitions"]
        line = self._names.group(topic, group, partitions)

        def timeout_in(settings: Document) -> float:
            try:
                return float(settings["groups"][group]["visibility"])
            except KeyError:
                raise NotFound(f"{line.what} was not declared, or has expired") from None

        source = self._source(line, "", timeout_in)
        visibility = Visibility(source)
        await visibility.renew()
        kind = PartitionConsumer if partitions else LaneConsumer
        return self._kept(kind(source, visibility, self._consumers.discard))

    async def declare_queue(self, settings: QueueSettings) -> None:
        """Have a queue, or change it. Raises Conflict where RabbitMQ cannot without its management plugin."""
        self._check_open()
        check_name(settings.name, "queue")
        await self._queues.declare(settings)

    async def remove_queue(self, queue: str) -> None:
        """Remove a queue with all it holds."""
        self._check_open()
        await self._queues.remove(check_name(queue, "queue"))

    async def declare_topic(self, settings: TopicSettings) -> None:
        """Have a topic, or change it. Raises Conflict for other partitions, and as declare_queue does.

        Groups that are there keep the limits with which they were declared.
        """
        self._check_open()
        check_name(settings.name, "topic")
        await self._topics.declare(settings)

    async def remove_topic(self, topic: str) -> None:
        """Remove a topic with all it holds and its groups."""
        self._check_open()
        self._partitions.pop(topic, None)
        await self._topics.remove(check_name(topic, "topic"))

    async def declare_group(self, settings: GroupSettings) -> None:
        """Have a group, or change it. Raises Conflict for another expiry, which RabbitMQ cannot change.

        One with a start is there when all of the past was copied for it; what is published meanwhile may
        come twice.
        """
        self._check_open()
        check_name(settings.topic, "topic")
        check_pattern(settings.pattern)
        _check_group(settings.name)
        await self._topics.declare_group(settings)

    async def remove_group(self, topic: str, group: str) -> None:
        """Remove a group."""
        self._check_open()
        await self._topics.remove_group(check_name(topic, "topic"), group)

    async def queue_stats(self, queue: str) -> QueueStats:
        """How a queue stands. What is under way is known some seconds late, by the management plugin only."""
        self._check_open()
        return await self._queues.stats(check_name(queue, "queue"))

    async def topic_stats(self, topic: str) -> TopicStats:
        """How a topic and its groups stand, as of some seconds ago; its size is estimated."""
        self._check_open()
        return await self._topics.stats(check_name(topic, "topic"))

    async def peek(self, queue: str, *, limit: int, dead: bool = False) -> Sequence[StoredMessage]:
        """Up to `limit` of the oldest messages that wait: taken, and put back. It counts as a delivery."""
        self._check_open()
        check_name(queue, "queue")
        if not 1 <= limit <= MAX_PEEK:
            raise InvalidRequest(f"queue {queue!r}: 1 to {MAX_PEEK} messages can be looked at, not {limit}")
        return await self._queues.peek(queue, limit, dead=dead)

    async def redrive(self, queue: str, ids: Collection[str]) -> int:
        """Put dead letters of these ids back into their lanes."""
        self._check_open()
        return await self._queues.redrive(check_name(queue, "queue"), ids)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Throw away what waits, or the dead letters."""
        self._check_open()
        return await self._queues.purge(check_name(queue, "queue"), dead=dead)

    async def aclose(self) -> None:
        """Let go of RabbitMQ. Consumers end."""
        self._closed = True
        for consumer in tuple(self._consumers):
            await consumer.aclose()
        await self._publishing.aclose()
        await self._reading.aclose()
        if self._management is not None:
            await self._management.aclose()

    async def _partitions_of(self, topic: str) -> int:
        if topic not in self._partitions:
            known = await self._settings.read(self._names.topic_settings(topic), f"topic {topic!r}")
            self._partitions[topic] = known["partitions"]
        return self._partitions[topic]

    def _source(self, line: Line, dead: str, visibility_in: Callable[[Document], float]) -> Source:
        self._check_open()
        return Source(line, dead, self._reading, self._publisher, self._settings, visibility_in)

    def _kept(self, consumer: Puller) -> Puller:
        self._consumers.add(consumer)
        return consumer

    def _check_open(self) -> None:
        if self._closed:
            raise Unavailable("this client of RabbitMQ is closed; open another one")


def _queue_visibility(settings: Document) -> float:
    return float(settings["visibility"])


def _check_group(name: str) -> None:
    if not _GROUP.fullmatch(name):
        raise InvalidRequest(f"{name[:128]!r} is no name for a group: use letters, digits, `-` and `_`")
