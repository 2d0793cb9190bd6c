"""The broker in memory: the same contract as the others, with nothing kept. For tests, users' included."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from weft.errors import InvalidRequest, NotFound, Unavailable
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
from weft.messaging.brokers.memory_consumer import MemoryConsumer
from weft.messaging.brokers.memory_line import Item, Line
from weft.messaging.brokers.memory_queue import MemoryQueue, Room
from weft.messaging.brokers.memory_topic import MemoryGroup, MemoryTopic
from weft.messaging.message import Message
from weft.model.subtopic import check_subtopic

MAX_BYTES = 1024**3
"""What the queues of a broker in memory hold together, unless it is told otherwise."""

MAX_PEEK = 1000


class _Contents:
    """The queues and topics, which clients share."""

    def __init__(self, max_bytes: int) -> None:
        self.queues: dict[str, MemoryQueue] = {}
        self.topics: dict[str, MemoryTopic] = {}
        self.room = Room(max_bytes)
        self.reachable = True

    def check(self) -> None:
        if not self.reachable:
            raise Unavailable("the broker in memory was interrupted; resume it")

    def queue(self, name: str) -> MemoryQueue:
        self.check()
        try:
            return self.queues[name]
        except KeyError:
            raise NotFound(f"there is no queue {name!r}: declare it") from None

    def topic(self, name: str) -> MemoryTopic:
        self.check()
        try:
            return self.topics[name]
        except KeyError:
            raise NotFound(f"there is no topic {name!r}: declare it") from None

    def wake_all(self) -> None:
        for queue in self.queues.values():
            queue.line.wake_all()
        for topic in self.topics.values():
            topic.wake_all()


class _QueueSource:
    """A queue, for its consumers."""

    sequenced = False

    def __init__(self, queue: MemoryQueue, contents: _Contents) -> None:
        self._queue = queue
        self._contents = contents

    @property
    def line(self) -> Line:
        return self._queue.line

    def check(self) -> None:
        self._contents.check()

    def pulled(self) -> None:
        """A queue does not mind how long nobody pulls."""

    def finish(self, item: Item) -> None:
        self._queue.finish(item)

    def bury(self, item: Item, reason: str) -> None:
        self._queue.bury(item, reason)


class _GroupSource:
    """A group, for its consumers."""

    sequenced = True

    def __init__(self, topic: MemoryTopic, group: MemoryGroup, contents: _Contents) -> None:
        self._topic = topic
        self._group = group
        self._contents = contents

    @property
    def line(self) -> Line:
        return self._group.line

    def check(self) -> None:
        self._contents.check()

    def pulled(self) -> None:
        # Expiry first: a group that nobody has pulled for too long does not come to life again.
        self._topic.forget_old()
        self._group.pulled()

    def finish(self, item: Item) -> None:
        self._group.line.finish(item)

    def bury(self, item: Item, reason: str) -> None:  # noqa: ARG002 -- of groups nobody asks for it
        raise InvalidRequest(
            f"message {item.message.id}: {self._group.line.name} has no dead letters; publish it elsewhere"
        )


class MemoryBroker:
    """A BrokerAdmin in memory, for one event loop.

    A client of it made by `client` sees the same queues and topics, and lets go of its own consumers only.
    """

    def __init__(self, *, max_bytes: int = MAX_BYTES) -> None:
        """Queues that hold `max_bytes` together take no more: Unavailable."""
        self._contents = _Contents(max_bytes)
        self._consumers: set[MemoryConsumer] = set()
        self._closed = False

    def client(self) -> MemoryBroker:
        """Another client of the same queues and topics."""
        other = MemoryBroker()
        other._contents = self._contents
        return other

    def interrupt(self) -> None:
        """Behave as if the connection were lost, for all clients: everything raises Unavailable.

        Timeouts go on. It is for tests of how a program bears an outage.
        """
        self._contents.reachable = False
        self._contents.wake_all()

    def resume(self) -> None:
        """Behave as if the connection were back."""
        self._contents.reachable = True

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        """Put a message into a queue. Raises QueueFull, InvalidRequest, NotFound."""
        if not 0 <= delay <= MAX_DELAY:
            raise InvalidRequest(
                f"message {message.id} cannot be delayed by {delay} seconds: by 0 to {MAX_DELAY:.0f}"
            )
        self._open_contents().queue(queue).put(message, priority, delay)

    async def publish(self, topic: str, message: Message, *, subtopic: str = "", partition: int = 0) -> int:
        """Publish a message; return its sequence. Raises InvalidRequest, NotFound."""
        check_subtopic(subtopic)
        return self._open_contents().topic(topic).publish(message, subtopic, partition)

    async def queue_consumer(self, queue: str) -> Consumer:
        """Take messages out of a queue. Raises NotFound."""
        contents = self._open_contents()
        return self._consumer(MemoryConsumer(_QueueSource(contents.queue(queue), contents), self._forget))

    async def group_consumer(self, topic: str, group: str) -> Consumer:
        """Take messages for a group out of a topic. Raises NotFound."""
        contents = self._open_contents()
        found = contents.topic(topic)
        source = _GroupSource(found, found.group(group), contents)
        return self._consumer(MemoryConsumer(source, self._forget))

    async def declare_queue(self, settings: QueueSettings) -> None:
        """Have a queue, or change it."""
        contents = self._open_contents()
        if settings.name in contents.queues:
            contents.queues[settings.name].change(settings)
        else:
            contents.queues[settings.name] = MemoryQueue(settings, contents.room)

    async def remove_queue(self, queue: str) -> None:
        """Remove a queue with all it holds."""
        removed = self._open_contents().queues.pop(queue, None)
        if removed is not None:
            removed.remove()

    async def declare_topic(self, settings: TopicSettings) -> None:
        """Have a topic, or change it. Raises Conflict for other partitions."""
        contents = self._open_contents()
        if settings.name in contents.topics:
            contents.topics[settings.name].change(settings)
        else:
            contents.topics[settings.name] = MemoryTopic(settings)

    async def remove_topic(self, topic: str) -> None:
        """Remove a topic with all it holds and its groups."""
        removed = self._open_contents().topics.pop(topic, None)
        if removed is not None:
            removed.remove()

    async def declare_group(self, settings: GroupSettings) -> None:
        """Have a group, or change it. Raises NotFound."""
        self._open_contents().topic(settings.topic).declare_group(settings)

    async def remove_group(self, topic: str, group: str) -> None:
        """Remove a group."""
        found = self._open_contents().topics.get(topic)
        if found is not None:
            found.remove_group(group)

    async def queue_stats(self, queue: str) -> QueueStats:
        """How a queue stands."""
        return self._open_contents().queue(queue).stats()

    async def topic_stats(self, topic: str) -> TopicStats:
        """How a topic and its groups stand."""
        return self._open_contents().topic(topic).stats()

    async def peek(self, queue: str, *, limit: int, dead: bool = False) -> Sequence[StoredMessage]:
        """Up to `limit` of the oldest messages, by lane: those delayed and under way too."""
        if not 1 <= limit <= MAX_PEEK:
            raise InvalidRequest(f"queue {queue!r}: 1 to {MAX_PEEK} messages can be looked at, not {limit}")
        return self._open_contents().queue(queue).peek(limit, dead=dead)

    async def redrive(self, queue: str, ids: Collection[str]) -> int:
        """Put dead letters of these ids back into their lanes."""
        return self._open_contents().queue(queue).redrive(ids)

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Throw away what waits, or the dead letters."""
        return self._open_contents().queue(queue).purge(dead=dead)

    async def aclose(self) -> None:
        """End this client's consumers. Its queues and topics are there as long as there is a client."""
        self._closed = True
        for consumer in tuple(self._consumers):
            await consumer.aclose()

    def _open_contents(self) -> _Contents:
        if self._closed:
            raise Unavailable("this client of the broker in memory is closed; open another one")
        self._contents.check()
        return self._contents

    def _consumer(self, consumer: MemoryConsumer) -> MemoryConsumer:
        self._consumers.add(consumer)
        return consumer

    def _forget(self, consumer: MemoryConsumer) -> None:
        self._consumers.discard(consumer)
