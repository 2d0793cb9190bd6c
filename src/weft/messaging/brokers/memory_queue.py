"""A queue in memory."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Collection, Sequence
from itertools import count, islice

from weft.errors import QueueFull, Unavailable
from weft.messaging.broker import DEAD_REASON_LENGTH, Priority, QueueSettings, QueueStats, StoredMessage
from weft.messaging.brokers.memory_line import Item, Line, size_of
from weft.messaging.message import Message


class Room:
    """How many bytes the messages of all queues may have together."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0

    def take(self, size: int) -> None:
        """Use up so much. Raises Unavailable if there is not so much left."""
        if self._used + size > self._limit:
            raise Unavailable(
                f"the broker in memory is full: its queues hold {self._used} of {self._limit} bytes; "
                "consume or purge what waits"
            )
        self._used += size

    def free(self, messages: Collection[Message]) -> None:
        """Have the room of these again."""
        self._used -= sum(map(size_of, messages))


class MemoryQueue:
    """Its lanes, and its dead letters: at most `max_length` of these, the oldest make room."""

    def __init__(self, settings: QueueSettings, room: Room) -> None:
        self._settings = settings
        self._room = room
        timeout = settings.visibility_timeout
        self.line = Line(f"queue {settings.name!r}", len(Priority), visibility_timeout=timeout)
        self._orders = count(1)
        self._dead: deque[tuple[Item, str]] = deque()
        self._total = 0

    def change(self, settings: QueueSettings) -> None:
        """Other limits and timeouts from now on."""
        self._settings = settings
        self.line.visibility_timeout = settings.visibility_timeout

    def put(self, message: Message, priority: Priority, delay: float) -> None:
        """Take a message in. Raises QueueFull or Unavailable."""
        if len(self.line) >= self._settings.max_length:
            raise QueueFull(
                f"queue {self._settings.name!r} holds {self._settings.max_length} messages, "
                "as many as it may: try again later"
            )
        self._room.take(size_of(message))
        self._total += 1
        self.line.put(Item(message, int(priority), next(self._orders)), delay)

    def finish(self, item: Item) -> None:
        """Forget a message that was under way."""
        self.line.finish(item)
        self._room.free([item.message])

    def bury(self, item: Item, reason: str) -> None:
        """Put a message that was under way among the dead letters."""
        self.line.finish(item)
        self._dead.append((item, reason[:DEAD_REASON_LENGTH]))
        while len(self._dead) > self._settings.max_length:
            self._room.free([self._dead.popleft()[0].message])

    def redrive(self, ids: Collection[str]) -> int:
        """Put dead letters of these ids back into their lanes."""
        chosen = [item for item, _ in self._dead if item.message.id in ids]
        self._dead = deque(each for each in self._dead if each[0].message.id not in ids)
        for item in chosen:
            self.line.put(Item(item.message, item.lane, next(self._orders), sent_at=item.sent_at))
        return len(chosen)

    def peek(self, limit: int, *, dead: bool) -> Sequence[StoredMessage]:
        """The oldest messages by lane, those delayed and under way included; or dead letters."""
        if dead:
            ordered = sorted(self._dead, key=lambda each: (each[0].lane, each[0].order))
            return [_stored(item, reason) for item, reason in islice(ordered, limit)]
        return [_stored(item) for item in self.line.first(limit)]

    def purge(self, *, dead: bool) -> int:
        """Forget what waits, or the dead letters."""
        if dead:
            gone = [item for item, _ in self._dead]
            self._dead.clear()
        else:
            gone = self.line.clear()
        self._room.free([item.message for item in gone])
        return len(gone)

    def stats(self) -> QueueStats:
        """How it stands."""
        line = self.line
        oldest = line.oldest
        return QueueStats(
            ready=line.ready,
            in_flight=line.in_flight,
            delayed=line.delayed,
            dead=len(self._dead),
            oldest_age=None if oldest is None else max(time.time() - oldest, 0.0),
            enqueued_total=self._total,
        )

    def remove(self) -> None:
        """Forget everything; whoever waits gets NotFound."""
        self._room.free([item.message for item in self.line.messages()])
        self.purge(dead=True)
        self.line.remove()


def _stored(item: Item, reason: str = "") -> StoredMessage:
    return StoredMessage(item.message, item.lane, item.sent_at, reason)
