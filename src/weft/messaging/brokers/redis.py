"""The broker in Redis: a stream for each lane and each partition, and scripts that do each thing as a whole.

Redis 7.0 or newer, one server or a primary: no cluster yet, though the keys of a queue or topic are in one
slot. It keeps what it confirms if it is told to: `appendonly yes`, `appendfsync always`, and
`maxmemory-policy noeviction`.

What a user of Redis needs to be permitted, if the mesh has one of its own:
`+@all -@admin -@dangerous +info +config|get ~<prefix>:* &<prefix>:wake:*`.

Each lane and delayed messages are counted together against `max_length`; of dead letters as many are kept.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

from weft.aio.tasks import TaskOwner
from weft.errors import Conflict, InvalidRequest, QueueFull, Unavailable
from weft.messaging.broker import (
    MAX_DELAY,
    Consumer,
    GroupSettings,
    GroupStats,
    Priority,
    QueueSettings,
    QueueStats,
    StoredMessage,
    TopicSettings,
    TopicStats,
)
from weft.messaging.brokers import redis_script as scripts
from weft.messaging.brokers.redis_address import parse_redis_url
from weft.messaging.brokers.redis_connection import Argument, RedisConnection, RedisRefusal
from weft.messaging.brokers.redis_consumer import RedisConsumer
from weft.messaging.brokers.redis_keys import QueueKeys
from weft.messaging.brokers.redis_line import GroupLine, QueueLine, RedisLine, no_queue
from weft.messaging.brokers.redis_peek import peek_dead, peek_lanes
from weft.messaging.brokers.redis_script import Script
from weft.messaging.brokers.redis_server import check_server
from weft.messaging.brokers.redis_topic import RedisTopic
from weft.messaging.brokers.redis_wakes import RedisWakes
from weft.messaging.brokers.redis_wire import message_fields, size_of
from weft.messaging.message import Message
from weft.model.subtopic import ANY_TOKEN, ONLY_ROOT, REST, check_subtopic

logger = logging.getLogger(__name__)

MAX_PEEK = 1000

_FULL = "WEFTFULL"

_PURGED_AT_ONCE = 100
_REDRIVEN_AT_ONCE = 100

_PREFIX = re.compile(r"[A-Za-z0-9_.:-]{1,128}")

_CLOSING_LIMIT = 1.0
"""Seconds for what is handed back when a broker closes."""


class RedisBroker:
    """A BrokerAdmin over one Redis. Open it with `connect`."""

    def __init__(self, connection: RedisConnection, wakes: RedisWakes, prefix: str) -> None:
        self._connection = connection
        self._wakes = wakes
        self._prefix = prefix
        self._topics: dict[str, RedisTopic] = {}
        self._consumers: set[RedisConsumer] = set()
        self._background: set[asyncio.Task[None]] = set()
        self._tasks = TaskOwner("redis broker")
        self._listening = False
        self._closed = False

    @classmethod
    async def connect(
        cls, url: str, *, username: str = "", password: str = "", timeout: float = 5.0, prefix: str = "weft"
    ) -> RedisBroker:
        """Connect to the Redis at `redis://host:port/database`, or `rediss://` for TLS.

        `timeout`: seconds that each operation may take. `prefix`: what all keys begin with; meshes that share
        a Redis have one each. Raises InvalidRequest for a URL or prefix that is none, Unavailable, Denied.
        """
        if not _PREFIX.fullmatch(prefix):
            raise InvalidRequest(f"{prefix[:128]!r} is no prefix of keys: use letters, digits and `_.:-`")
        address = parse_redis_url(url, username=username, password=password)
        connection = RedisConnection(address, timeout=timeout)
        try:
            await check_server(connection)
        except BaseException:
            await connection.close()
            raise
        return cls(connection, RedisWakes(address, prefix, timeout=timeout), prefix)

    async def enqueue(
        self, queue: str, message: Message, *, priority: Priority = Priority.NORMAL, delay: float = 0.0
    ) -> None:
        """Put a message into a queue. Raises QueueFull, InvalidRequest, NotFound."""
        if not 0 <= delay <= MAX_DELAY:
            raise InvalidRequest(
                f"message {message.id} cannot be delayed by {delay} seconds: by 0 to {MAX_DELAY:.0f}"
            )
        keys = QueueKeys(self._prefix, queue)
        try:
            await self._connection.run(
                f"enqueue in queue {queue!r}",
                scripts.QUEUE_ENQUEUE,
                (keys.settings, *keys.lanes, keys.delayed, keys.held, keys.waiting, keys.clock),
                (int(priority), math.ceil(delay * 1000), *message_fields(message)),
            )
        except RedisRefusal as refusal:
            if refusal.code == _FULL:
                raise QueueFull(
                    f"queue {queue!r} holds {refusal.detail} messages, as many as it may: try again later"
                ) from None
            raise no_queue(queue) from None

    async def publish(self, topic: str, message: Message, *, subtopic: str = "", partition: int = 0) -> int:
        """Publish a message; return its sequence, which all partitions share.

        Raises InvalidRequest, NotFound.
        """
        check_subtopic(subtopic)
        known = self._topic(topic)
        keys = known.keys
        own = (size_of(message), subtopic, *message_fields(message))

        def command(partitions: int) -> tuple[Sequence[str], Sequence[Argument]]:
            if not 0 <= partition < max(partitions, 1):
                raise InvalidRequest(f"topic {topic!r} has {partitions} partitions, no {partition}")
            return (
                (keys.settings, keys.groups, keys.waiting, *keys.streams(partitions)),
                (partitions, partition, *own),
            )

        sequence = int(await known.run(f"publish in topic {topic!r}", scripts.TOPIC_PUBLISH, command))
        self._topics[topic] = known
        return sequence

    async def queue_consumer(self, queue: str) -> Consumer:
        """Take messages out of a queue. Raises NotFound."""
        keys = QueueKeys(self._prefix, queue)
        if not await self._connection.call(f"look for queue {queue!r}", "EXISTS", keys.settings):
            raise no_queue(queue)
        return self._consumer(QueueLine(self._connection, keys, queue))

    async def group_consumer(self, topic: str, group: str) -> Consumer:
        """Take messages for a group out of a topic. Raises NotFound."""
        known = self._topic(topic)
        await known.run(
            f"look for group {group!r} of topic {topic!r}",
            scripts.GROUP_CHECK,
            lambda partitions: (known.keys.everything(partitions), (partitions, group)),
            group=group,
        )
        return self._consumer(GroupLine(known, group))

    async def declare_queue(self, settings: QueueSettings) -> None:
        """Have a queue, or change it."""
        keys = QueueKeys(self._prefix, settings.name)
        await self._connection.run(
            f"declare queue {settings.name!r}",
            scripts.QUEUE_DECLARE,
            (keys.settings, *keys.lanes),
            (_milliseconds(settings.visibility_timeout), settings.max_length),
        )

    async def remove_queue(self, queue: str) -> None:
        """Remove a queue with all it holds."""
        keys = QueueKeys(self._prefix, queue)
        await self._connection.run(f"remove queue {queue!r}", scripts.REMOVE, keys.everything)

    async def declare_topic(self, settings: TopicSettings) -> None:
        """Have a topic, or change it. Raises Conflict for other partitions."""
        topic = self._topic(settings.name)
        try:
            await self._connection.run(
                f"declare topic {settings.name!r}",
                scripts.TOPIC_DECLARE,
                (topic.keys.settings, *topic.keys.streams(settings.partitions)),
                (settings.partitions, _milliseconds(settings.max_age), settings.max_bytes),
            )
        except RedisRefusal as refusal:
            raise Conflict(
                f"topic {settings.name!r} has {refusal.detail} partitions and cannot have "
                f"{settings.partitions} instead: use another topic"
            ) from None

    async def remove_topic(self, topic: str) -> None:
        """Remove a topic with all it holds and its groups."""
        known = self._topics.pop(topic, None) or self._topic(topic)
        partitions = await known.found_partitions()
        if partitions is not None:
            await self._connection.run(
                f"remove topic {topic!r}", scripts.TOPIC_REMOVE, known.keys.everything(partitions)
            )

    async def declare_group(self, settings: GroupSettings) -> None:
        """Have a group, or change it. Raises NotFound."""
        topic = self._topic(settings.topic)
        expires = _milliseconds(settings.expires or 0)
        declared = {
            "visibility": _milliseconds(settings.visibility_timeout),
            "expires": expires,
            "pattern": _lua_pattern(settings.pattern),
            "only_root": settings.pattern == ONLY_ROOT,
        }
        start = settings.start
        since = "" if start.time is None else math.ceil(max(start.time, 0) * 1000)
        sequence = "" if start.sequence is None else start.sequence
        await topic.run(
            f"declare group {settings.name!r} of topic {settings.topic!r}",
            scripts.GROUP_DECLARE,
            lambda partitions: (
                topic.keys.everything(partitions),
                (partitions, settings.name, json.dumps(declared), expires, sequence, since),
            ),
        )

    async def remove_group(self, topic: str, group: str) -> None:
        """Remove a group."""
        known = self._topic(topic)
        partitions = await known.found_partitions()
        if partitions is not None:
            await self._connection.run(
                f"remove group {group!r} of topic {topic!r}",
                scripts.GROUP_REMOVE,
                known.keys.everything(partitions),
                (group,),
            )

    async def queue_stats(self, queue: str) -> QueueStats:
        """How a queue stands."""
        keys = QueueKeys(self._prefix, queue)
        ready, in_flight, delayed, dead, age, total = await self._ask(
            queue, f"count queue {queue!r}", scripts.QUEUE_STATS, (*keys.lines, keys.delayed, keys.dead)
        )
        oldest = None if age < 0 else age / 1000
        return QueueStats(ready, in_flight, delayed, dead, oldest, total)

    async def topic_stats(self, topic: str) -> TopicStats:
        """How a topic and its groups stand.

        Of a group with a pattern the first few hundred messages are looked at; those behind all count as its.
        """
        known = self._topic(topic)
        messages, size, first, last, *groups = await known.run(
            f"count topic {topic!r}",
            scripts.TOPIC_STATS,
            lambda partitions: (known.keys.everything(partitions), (partitions,)),
        )
        stats = [
            GroupStats(topic, name.decode(), pending, in_flight)
            for name, pending, in_flight in zip(groups[::3], groups[1::3], groups[2::3], strict=True)
        ]
        return TopicStats(messages, size, first, last, tuple(sorted(stats, key=lambda each: each.name)))

    async def peek(self, queue: str, *, limit: int, dead: bool = False) -> Sequence[StoredMessage]:
        """The oldest messages by lane, those delayed and under way too; about 32 MiB of them at most."""
        if not 1 <= limit <= MAX_PEEK:
            raise InvalidRequest(f"queue {queue!r}: 1 to {MAX_PEEK} messages can be looked at, not {limit}")
        keys = QueueKeys(self._prefix, queue)
        if not await self._connection.call(f"look for queue {queue!r}", "EXISTS", keys.settings):
            raise no_queue(queue)
        what = f"look at queue {queue!r}"
        look = peek_dead if dead else peek_lanes
        return await look(self._connection, what, keys, limit)

    async def redrive(self, queue: str, ids: Collection[str]) -> int:
        """Put dead letters of these ids back into their lanes."""
        keys = QueueKeys(self._prefix, queue)
        lines = (keys.settings, *keys.lanes, keys.dead, keys.dead_ids, keys.waiting)
        what = f"redrive dead letters of queue {queue!r}"
        wanted = sorted(set(ids))
        count = 0
        for first in range(0, max(len(wanted), 1), _REDRIVEN_AT_ONCE):
            some = wanted[first : first + _REDRIVEN_AT_ONCE]
            count += int(await self._ask(queue, what, scripts.QUEUE_REDRIVE, lines, some))
        return count

    async def purge(self, queue: str, *, dead: bool = False) -> int:
        """Throw away what waits, or the dead letters."""
        keys = QueueKeys(self._prefix, queue)
        what = f"purge queue {queue!r}"
        if dead:
            dead_lines = (keys.settings, keys.dead, keys.dead_ids)
            return int(await self._ask(queue, what, scripts.QUEUE_PURGE_DEAD, dead_lines))
        purged, more = 0, 1
        while more:
            lines = (*keys.lines, keys.delayed, keys.held)
            gone, more = await self._ask(queue, what, scripts.QUEUE_PURGE, lines, (_PURGED_AT_ONCE,))
            purged += gone
        return purged

    async def aclose(self) -> None:
        """End this client's consumers, which hand back what they hold, and its connections."""
        if self._closed:
            return
        self._closed = True
        await asyncio.gather(*(each.aclose() for each in tuple(self._consumers)))
        if self._background:
            await asyncio.wait(tuple(self._background), timeout=_CLOSING_LIMIT)
        await self._tasks.close()
        await self._connection.close()

    async def _ask(
        self,
        queue: str,
        what: str,
        script: Script,
        keys: Sequence[str],
        arguments: Sequence[Argument] = (),
    ) -> Any:
        try:
            return await self._connection.run(what, script, keys, arguments)
        except RedisRefusal:
            raise no_queue(queue) from None

    def _topic(self, name: str) -> RedisTopic:
        # Kept by who has found that there is such a topic: anybody may ask for any name.
        return self._topics.get(name) or RedisTopic(self._connection, self._prefix, name)

    def _consumer(self, line: RedisLine) -> RedisConsumer:
        if self._closed:
            raise Unavailable("this client of Redis is closed; open another one")
        if not self._listening:
            self._listening = True
            self._tasks.start(self._wakes.run(), name="listen", endless=True)
        consumer = RedisConsumer(line, self._wakes, self._do_behind, self._consumers.discard)
        self._consumers.add(consumer)
        return consumer

    def _do_behind(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            task = self._tasks.start(work, name="hand on")
        except RuntimeError:
            return  # closed: the visibility timeout sees to it
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _milliseconds(seconds: float) -> int:
    return math.ceil(seconds * 1000)


def _lua_pattern(pattern: str) -> str:
    """The pattern of subtopics as Lua matches texts; empty: all."""
    if pattern in {"", ONLY_ROOT}:
        return ""
    tokens = {ANY_TOKEN: "[^.]+", REST: ".+"}
    return "^" + "%.".join(tokens.get(each) or each.replace("-", "%-") for each in pattern.split(".")) + "$"
