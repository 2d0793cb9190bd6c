"""A topic in memory, with its groups."""

from __future__ import annotations

import asyncio
import time
from collections import deque

from weft.errors import Conflict, InvalidRequest, NotFound
from weft.messaging.broker import GroupSettings, GroupStats, Start, TopicSettings, TopicStats
from weft.messaging.brokers.memory_line import Item, Line, size_of
from weft.messaging.message import Message
from weft.model.subtopic import matches


class MemoryGroup:
    """What one group has yet to get."""

    def __init__(self, settings: GroupSettings, partitions: int) -> None:
        self._settings = settings
        self._last_pull = asyncio.get_running_loop().time()
        self.line = Line(
            f"group {settings.name!r} of topic {settings.topic!r}",
            max(partitions, 1),
            visibility_timeout=settings.visibility_timeout,
            one_by_one=partitions > 0,
        )

    @property
    def expired(self) -> bool:
        """Whether nobody has pulled for too long."""
        expires = self._settings.expires
        if expires is None or self.line.waited_for:
            return False
        return self._last_pull + expires <= asyncio.get_running_loop().time()

    def change(self, settings: GroupSettings) -> None:
        """Another timeout and expiry, and another pattern: of what waits, that stays which matches it."""
        self._settings = settings
        self.line.visibility_timeout = settings.visibility_timeout
        waiting = self.line.clear()
        for each in waiting:
            self.offer(each)

    def offer(self, item: Item) -> None:
        """Take a message in, if it is one that the pattern stands for."""
        if matches(self._settings.pattern, item.subtopic):
            self.line.put(item)

    def pulled(self) -> None:
        """Somebody pulls."""
        self._last_pull = asyncio.get_running_loop().time()

    def stats(self) -> GroupStats:
        """How it stands."""
        line = self.line
        pending = line.ready + line.delayed
        return GroupStats(self._settings.topic, self._settings.name, pending, line.in_flight)


class MemoryTopic:
    """The log, and the groups, each with a line of its own."""

    def __init__(self, settings: TopicSettings) -> None:
        self._settings = settings
        self._log: deque[Item] = deque()
        self._size = 0
        self._last = 0
        self._groups: dict[str, MemoryGroup] = {}

    def change(self, settings: TopicSettings) -> None:
        """Other limits from now on. Raises Conflict for other partitions."""
        if settings.partitions != self._settings.partitions:
            raise Conflict(
                f"topic {settings.name!r} has {self._settings.partitions} partitions and cannot have "
                f"{settings.partitions} instead: use another topic"
            )
        self._settings = settings
        self.forget_old()

    def publish(self, message: Message, subtopic: str, partition: int) -> int:
        """Add a message to the log and to all groups that it is for."""
        if not 0 <= partition < max(self._settings.partitions, 1):
            raise InvalidRequest(
                f"topic {self._settings.name!r} has {self._settings.partitions} partitions, no {partition}"
            )
        self._last += 1
        item = Item(message, partition, self._last, subtopic)
        self._log.append(item)
        self._size += size_of(message)
        for group in self._groups.values():
            group.offer(_copy(item))
        self.forget_old()
        return self._last

    def declare_group(self, settings: GroupSettings) -> None:
        """Have a group, or change the one that is there."""
        self.forget_old()
        group = self._groups.get(settings.name)
        if group is not None:
            group.change(settings)
            return
        group = self._groups[settings.name] = MemoryGroup(settings, self._settings.partitions)
        for item in self._log:
            if _is_from(settings.start, item):
                group.offer(_copy(item))

    def group(self, name: str) -> MemoryGroup:
        """The group. Raises NotFound."""
        self.forget_old()
        try:
            return self._groups[name]
        except KeyError:
            raise NotFound(
                f"topic {self._settings.name!r} has no group {name!r}: it was not declared, or expired"
            ) from None

    def remove_group(self, name: str) -> None:
        """Remove a group; whoever waits for its messages gets NotFound."""
        group = self._groups.pop(name, None)
        if group is not None:
            group.line.remove()

    def remove(self) -> None:
        """Remove everything."""
        for name in tuple(self._groups):
            self.remove_group(name)
        self._log.clear()

    def stats(self) -> TopicStats:
        """How it and its groups stand."""
        self.forget_old()
        return TopicStats(
            messages=len(self._log),
            size=self._size,
            first_sequence=self._first,
            last_sequence=self._last,
            groups=tuple(each.stats() for each in self._groups.values()),
        )

    def wake_all(self) -> None:
        """Have all who wait look again."""
        for group in self._groups.values():
            group.line.wake_all()

    def forget_old(self) -> None:
        """Drop messages beyond the limits, and groups that have expired."""
        for name in [name for name, group in self._groups.items() if group.expired]:
            self.remove_group(name)
        oldest = time.time() - self._settings.max_age
        dropped = False
        while self._log and (self._size > self._settings.max_bytes or self._log[0].sent_at < oldest):
            self._size -= size_of(self._log.popleft().message)
            dropped = True
        if dropped:
            for group in self._groups.values():
                group.line.forget_before(self._first)

    @property
    def _first(self) -> int:
        return self._log[0].order if self._log else self._last + 1


def _copy(item: Item) -> Item:
    """For a group, which counts deliveries for itself."""
    return Item(item.message, item.lane, item.order, item.subtopic, item.sent_at)


def _is_from(start: Start, item: Item) -> bool:
    if start.sequence is not None:
        return item.order >= start.sequence
    return start.time is not None and item.sent_at >= start.time
