"""The contract of a broker: what memory, NATS JetStream, Redis Streams and RabbitMQ all promise.

A *queue* is a line of messages each of which one consumer gets; it has a *lane* for each priority, and a
line of dead letters beside. A *topic* is a log of messages that every *group* gets: within a group each
message goes to one consumer. A topic with partitions keeps the order of messages with the same key within
each group: a later one waits until the earlier one is done with.

Delivery is at least once. What was confirmed to its sender survives the SIGKILL and restart of the broker's
process. A message that is neither acknowledged nor extended within its visibility timeout, or whose consumer
is gone, is delivered again.

Everything raises Unavailable where the broker cannot be reached or cannot do it (disk full) within its time
limit, after which a message may or may not have been taken; Denied where the broker does not permit it;
NotFound for a queue, topic or group that was not declared. Nothing of a broker's own errors comes through.

Who uses what: sidecars, agents and gateways hold a Broker; the control plane, which declares, a BrokerAdmin.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

from weft.errors import InvalidRequest
from weft.messaging.message import Message
from weft.model.names import check_name
from weft.model.subtopic import check_pattern

DEAD_REASON_LENGTH = 1024
"""Longer reasons of dead letters are cut off."""

MAX_DELAY = 30 * 86400.0
"""Seconds a message may be delayed."""

MAX_PARTITIONS = 16

_GROUP = re.compile(r"[A-Za-z0-9_-]{1,128}")


class Priority(IntEnum):
    """Lanes of a queue. As long as a higher one has messages, no lower one is served."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """A queue, as it is declared. Making one raises InvalidRequest for a name that is none."""

    name: str
    visibility_timeout: float = 30.0
    """Seconds a consumer has to acknowledge or extend."""
    max_length: int = 1_000_000
    """Messages, those under way and delayed ones included but not dead letters; at most that many are taken
    (a broker may count delayed ones, and each lane, for itself; RabbitMQ counts only those that wait, and
    once it was full takes none until a fifth of that is gone)."""

    def __post_init__(self) -> None:
        check_name(self.name, "queue")


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """A topic, as it is declared. Making one raises InvalidRequest for a name that is none, or too many
    partitions."""

    name: str
    partitions: int = 0
    """0: no order. Else messages with the same key are kept in order, in one of so many partitions (1 to 16),
    of each of which one message at a time is under way in a group."""
    max_age: float = 7 * 86400.0
    """Seconds a message is kept, for replay and for groups that are behind."""
    max_bytes: int = 1024**3
    """The oldest messages make room beyond it."""

    def __post_init__(self) -> None:
        check_name(self.name, "topic")
        if not 0 <= self.partitions <= MAX_PARTITIONS:
            raise InvalidRequest(
                f"topic {self.name!r} cannot have {self.partitions} partitions: 0 to {MAX_PARTITIONS}"
            )


MAX_SEQUENCE = 2**53 - 1
"""No topic gets that far, and every broker can be asked for it."""

MAX_TIME = 2**33
"""Seconds since 1970: in the year 2242. Not every broker can be asked for much later times."""


@dataclass(frozen=True, slots=True)
class Start:
    """Where a new group begins: with nothing given, at what is published from now on.

    Making one raises InvalidRequest for what is no place in a topic.
    """

    sequence: int | None = None
    """With the message of that sequence; 1 is the first there ever was."""
    time: float | None = None
    """With what was published at that time (seconds since 1970) or later."""

    def __post_init__(self) -> None:
        if self.sequence is not None and not 1 <= self.sequence <= MAX_SEQUENCE:
            raise InvalidRequest(f"a topic begins at sequence 1, and has none beyond {MAX_SEQUENCE}")
        if self.time is not None and not 0 <= self.time <= MAX_TIME:
            raise InvalidRequest(f"events are published from 0 to {MAX_TIME} seconds after 1970, not then")


NEW = Start()
ALL = Start(sequence=1)


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """A group of a topic, as it is declared. Declaring it again with another start does not move it.

    Making one raises InvalidRequest for a name or pattern that is none.
    """

    topic: str
    name: str
    """1 to 128 letters, digits, `-`, `_`."""
    pattern: str = ""
    """Subtopics that it gets, relative to the topic: tokens separated by dots, `*` for any one token, `>` at
    the end for one or more. Empty: all, with and without a subtopic. `.` alone: only those without."""
    start: Start = NEW
    visibility_timeout: float = 30.0
    """Seconds."""
    expires: float | None = None
    """Seconds after which it is removed if no consumer of it pulls; None: never."""

    def __post_init__(self) -> None:
        check_pattern(self.pattern)
        if not _GROUP.fullmatch(self.name):
            raise InvalidRequest(
                f"{self.name[:128]!r} is no name for a group: use 1 to 128 letters, digits, `-` and `_`"
            )


@dataclass(frozen=True, slots=True)
class QueueStats:
    """How a queue stands."""

    ready: int
    """Messages that a consumer could take now."""
    in_flight: int
    """Messages that consumers have."""
    delayed: int
    dead: int
    oldest_age: float | None
    """Seconds since the oldest message that is ready or under way was sent; None if there is none. Where a
    broker cannot tell for messages under way, that of the oldest ready one."""
    enqueued_total: int | None
    """Messages ever taken, redeliveries not counted; may begin anew with the broker. None: unknown."""


@dataclass(frozen=True, slots=True)
class GroupStats:
    """How a group stands."""

    topic: str
    name: str
    pending: int
    """Messages it has not been delivered yet."""
    in_flight: int


@dataclass(frozen=True, slots=True)
class TopicStats:
    """How a topic stands."""

    messages: int
    size: int
    """Bytes."""
    first_sequence: int
    last_sequence: int
    """0 if nothing was ever published. With partitions in lines of their own, the largest."""
    groups: tuple[GroupStats, ...]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message looked at where it lies."""

    message: Message
    lane: int
    sent_at: float
    """Seconds since 1970."""
    reason: str = ""
    """Of a dead letter: why it is one."""


class Delivery(Protocol):
    """A message in a consumer's hands. After one ack, nack or dead_letter a second does nothing.

    Nor need any of them do anything once the visibility timeout is over, or the consumer closed: then the
    message comes again. Only `extend` tells.
    """

    @property
    def message(self) -> Message:
        """What was sent."""
        ...

    @property
    def lane(self) -> int:
        """Its priority in a queue, its partition in a topic (0 without)."""
        ...

    @property
    def subtopic(self) -> str:
        """Of a topic's message; empty if it has none, and in queues."""
        ...

    @property
    def deliveries(self) -> int:
        """How often it has been delivered, this time included; never less than it really was. Where peeking
        means taking (RabbitMQ), that counts too."""
        ...

    @property
    def sequence(self) -> int:
        """Its place in its topic (of a partition, where these are lines of their own); 0 in queues, and where
        the broker does not tell: RabbitMQ tells it of what is replayed."""
        ...

    @property
    def sent_at(self) -> float:
        """Seconds since 1970."""
        ...

    async def ack(self) -> None:
        """It is done with. If this gets lost it comes again."""
        ...

    async def nack(self, delay: float = 0.0) -> None:
        """Have it delivered again in `delay` seconds; others that wait are not held up by it, except in a
        partition those behind it. Without a delay it may come before or behind those that wait."""
        ...

    async def extend(self) -> None:
        """Have the visibility timeout begin anew. Raises Conflict where it is known to be too late."""
        ...

    async def dead_letter(self, reason: str) -> None:
        """Move it to the queue's dead letters. For queues only: raises InvalidRequest in a topic."""
        ...


class Consumer(Protocol):
    """Takes messages out of one queue or group. One task at a time may pull."""

    async def pull(self, limit: int, *, wait: float) -> Sequence[Delivery]:
        """Up to `limit` messages, as soon as there is one; none if there is none within `wait` seconds.

        Never more than `limit` are taken out of the queue by this consumer: nothing is prefetched behind
        the caller's back. Cancelling it loses nothing. With a `wait` of 0 it takes what is there. Raises
        NotFound if the queue or group is not there (any more), InvalidRequest for a limit below 1, and
        Unavailable once it is closed.
        """
        ...

    async def aclose(self) -> None:
        """Stop. What was pulled can still be acknowledged until then; what was not comes again, at the latest
        after its visibility timeout. A second time it does nothing."""
        ...


class Broker(Protocol):
    """What members of the mesh do with topics and queues."""

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        """Put a message into a queue, to be delivered `delay` seconds from now at the earliest.

        When it returns the message is stored. Raises QueueFull if the queue holds `max_length` messages, and
        InvalidRequest for a delay beyond MAX_DELAY.
        """
        ...

    async def publish(self, topic: str, message: Message, *, subtopic: str = "", partition: int = 0) -> int:
        """Publish a message; return its sequence, 0 where the broker does not tell. Stored when it returns.

        `partition` is what `partition_of` says in topics that have any. Raises InvalidRequest for a subtopic
        that is none.
        """
        ...

    async def queue_consumer(self, queue: str) -> Consumer:
        """Take messages out of a queue. Where it is missing, this raises NotFound, or the first pull does."""
        ...

    async def group_consumer(self, topic: str, group: str) -> Consumer:
        """Take messages for a group out of a topic: all of its partitions."""
        ...

    async def aclose(self) -> None:
        """Let go of the broker. Consumers end."""
        ...


class BrokerAdmin(Broker, Protocol):
    """What the control plane does beside."""

    async def declare_queue(self, settings: QueueSettings) -> None:
        """Have a queue. Of one that is there, limits and timeouts are changed; its messages stay."""
        ...

    async def remove_queue(self, queue: str) -> None:
        """Remove a queue with all it holds. A missing one is no error."""
        ...

    async def declare_topic(self, settings: TopicSettings) -> None:
        """Have a topic. Of one that is there, limits are changed. Raises Conflict for other partitions."""
        ...

    async def remove_topic(self, topic: str) -> None:
        """Remove a topic with all it holds and its groups. A missing one is no error."""
        ...

    async def declare_group(self, settings: GroupSettings) -> None:
        """Have a group. Of one that is there, the pattern, timeout and expiry are changed."""
        ...

    async def remove_group(self, topic: str, group: str) -> None:
        """Remove a group. A missing one is no error."""
        ...

    async def queue_stats(self, queue: str) -> QueueStats:
        """How a queue stands."""
        ...

    async def topic_stats(self, topic: str) -> TopicStats:
        """How a topic and its groups stand."""
        ...

    async def peek(self, queue: str, *, limit: int, dead: bool = False) -> Sequence[StoredMessage]:
        """Up to `limit` (at most 1,000) of the oldest messages, by lane; leaves them where they are.

        Those that are ready; a broker that can tell shows delayed ones and those under way too.
        """
        ...

    async def redrive(self, queue: str, ids: Collection[str]) -> int:
        """Put dead letters of these ids back into their lanes; return how many. Counts deliveries anew.

        They come back though the queue be full.
        """
        ...

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Throw away what waits (delayed ones too; not what is under way), or the dead letters; how many."""
        ...
