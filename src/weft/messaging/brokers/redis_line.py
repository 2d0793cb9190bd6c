"""What a consumer takes messages from: a queue, or a group of a topic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from weft.errors import InvalidRequest, NotFound
from weft.messaging.broker import DEAD_REASON_LENGTH
from weft.messaging.brokers import redis_script as scripts
from weft.messaging.brokers.redis_connection import Argument, Orphaned, RedisConnection, RedisRefusal
from weft.messaging.brokers.redis_keys import QueueKeys
from weft.messaging.brokers.redis_topic import RedisTopic

QUEUE_GROUP = "w"
"""The one group that the streams of a queue have."""


@dataclass(frozen=True, slots=True)
class Timers:
    """Where the messages of a lane or partition lie, and when they are due."""

    stream: str
    lease: str
    later: str


@dataclass(frozen=True, slots=True)
class Ticket:
    """One delivery of a message, as Redis knows it."""

    number: int
    """Lane or partition."""
    entry: str
    """The id of its entry in the stream."""
    delivery: int
    """How often it had been delivered then."""
    place: int = 0
    """In its partition."""


class RedisLine(Protocol):
    """What messages are taken from. All that asks Redis raises Unavailable or Denied."""

    @property
    def name(self) -> str:
        """For errors: `queue 'q'`."""
        ...

    @property
    def connection(self) -> RedisConnection:
        """Where it is."""
        ...

    @property
    def stream_group(self) -> str:
        """The group of the stream."""
        ...

    @property
    def group(self) -> str:
        """Under which consumers wait."""
        ...

    @property
    def waiting(self) -> str:
        """The key of those who wait."""
        ...

    @property
    def clock(self) -> str:
        """The key of who watches the clock."""
        ...

    @property
    def settings(self) -> tuple[str, str]:
        """Key and field that hold the visibility timeout."""
        ...

    @property
    def sequenced(self) -> bool:
        """Whether ids of entries end in the sequence of their message."""
        ...

    def timers(self, number: int) -> Timers:
        """The keys of a lane or partition."""
        ...

    async def take(self, arguments: Sequence[Argument], orphaned: Orphaned) -> Any:
        """What the script for pulling says. Raises NotFound."""
        ...

    async def ack(self, ticket: Ticket) -> None:
        """It is done with."""
        ...

    async def bury(self, ticket: Ticket, reason: str, /) -> None:
        """It is a dead letter. Raises InvalidRequest for a group."""
        ...


class QueueLine:
    """A queue."""

    stream_group = QUEUE_GROUP
    group = ""
    sequenced = False

    def __init__(self, connection: RedisConnection, keys: QueueKeys, queue: str) -> None:
        self.connection = connection
        self.name = f"queue {queue!r}"
        self.waiting = keys.waiting
        self.clock = keys.clock
        self.settings = (keys.settings, "visibility")
        self._keys = keys
        self._queue = queue
        self._pull = (*keys.lines, keys.delayed, keys.held, keys.waiting, keys.clock)

    def timers(self, number: int) -> Timers:
        """The keys of a lane."""
        return Timers(self._keys.lanes[number], self._keys.leases[number], self._keys.laters[number])

    async def take(self, arguments: Sequence[Argument], orphaned: Orphaned) -> Any:
        """What the script for pulling says. Raises NotFound."""
        try:
            return await self.connection.run(
                f"pull from {self.name}", scripts.QUEUE_PULL, self._pull, arguments, orphaned=orphaned
            )
        except RedisRefusal:
            raise no_queue(self._queue) from None

    async def ack(self, ticket: Ticket) -> None:
        """It is done with, and gone."""
        timers = self.timers(ticket.number)
        await self.connection.run(
            f"acknowledge a message of {self.name}",
            scripts.QUEUE_ACK,
            (timers.stream, timers.lease),
            (ticket.number, ticket.entry, ticket.delivery),
        )

    async def bury(self, ticket: Ticket, reason: str) -> None:
        """It is a dead letter."""
        timers = self.timers(ticket.number)
        await self.connection.run(
            f"move a message to the dead letters of {self.name}",
            scripts.QUEUE_DEAD_LETTER,
            (self._keys.settings, timers.stream, timers.lease, self._keys.dead, self._keys.dead_ids),
            (ticket.number, ticket.entry, ticket.delivery, reason[:DEAD_REASON_LENGTH]),
        )


class GroupLine:
    """A group of a topic."""

    sequenced = True

    def __init__(self, topic: RedisTopic, group: str) -> None:
        self.connection = topic.connection
        self.name = f"group {group!r} of topic {topic.name!r}"
        self.stream_group = self.group = group
        self.waiting = topic.keys.waiting
        self.clock = topic.keys.clock(group)
        self.settings = (topic.keys.groups, group)
        self._topic = topic
        self._own = (topic.keys.lease(group), topic.keys.later(group), self.clock)

    def timers(self, number: int) -> Timers:
        """The keys of a partition."""
        keys = self._topic.keys
        return Timers(keys.stream(number), keys.lease(self.group), keys.later(self.group))

    async def take(self, arguments: Sequence[Argument], orphaned: Orphaned) -> Any:
        """What the script for pulling says. Raises NotFound."""
        keys = self._topic.keys
        return await self._topic.run(
            f"pull for {self.name}",
            scripts.TOPIC_PULL,
            lambda partitions: (
                (
                    *(keys.settings, keys.groups, keys.expiring, keys.waiting),
                    *self._own,
                    *keys.streams(partitions),
                ),
                (*arguments, self.group, partitions),
            ),
            group=self.group,
            orphaned=orphaned,
        )

    async def ack(self, ticket: Ticket) -> None:
        """It is done with; what is behind it in its partition may come."""
        timers = self.timers(ticket.number)
        keys = self._topic.keys
        await self.connection.run(
            f"acknowledge a message for {self.name}",
            scripts.TOPIC_ACK,
            (timers.stream, timers.lease, keys.settings, keys.waiting),
            (self.group, ticket.number, ticket.entry, ticket.delivery, ticket.place),
        )

    async def bury(self, _ticket: Ticket, _reason: str) -> None:
        """There is no such thing."""
        raise InvalidRequest(f"{self.name} has no dead letters: publish the message elsewhere")


def no_queue(queue: str) -> NotFound:
    """The error for a queue that is not there."""
    return NotFound(f"there is no queue {queue!r}: declare it")
