"""Looking at the messages of a queue where they lie."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from weft.errors import InvalidRequest
from weft.messaging.broker import StoredMessage
from weft.messaging.brokers import redis_script as scripts
from weft.messaging.brokers.redis_connection import RedisConnection
from weft.messaging.brokers.redis_keys import QueueKeys
from weft.messaging.brokers.redis_wire import by_name, message_of, sent_at

_PAGE = 32
"""Messages read at once."""

_MOST_BYTES = 32 * 1024**2


class _Found:
    """What was seen so far, up to a limit."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._bytes = 0
        self.messages: list[StoredMessage] = []

    @property
    def room(self) -> int:
        """How many more are wanted."""
        return self._limit - len(self.messages) if self._bytes < _MOST_BYTES else 0

    def add(self, lane: int, values: Mapping[bytes, bytes]) -> None:
        with suppress(InvalidRequest):  # somebody else's
            message = message_of(values)
            reason = values.get(b"r", b"").decode(errors="replace")
            self.messages.append(StoredMessage(message, lane, sent_at(values), reason))
            self._bytes += len(message.body)


async def peek_lanes(
    connection: RedisConnection, what: str, keys: QueueKeys, limit: int
) -> list[StoredMessage]:
    """Up to `limit` of the oldest messages by lane: those delayed too."""
    delayed = _Found(limit)
    while delayed.room and (page := await _delayed(connection, what, keys, len(delayed.messages))):
        for lane, fields in page:
            delayed.add(int(lane), by_name(fields))
    found: list[StoredMessage] = []
    for lane, stream in enumerate(keys.lanes):
        if len(found) < limit:
            here = _Found(limit - len(found))
            await _read(connection, what, stream, here, lane)
            also = [each for each in delayed.messages if each.lane == lane]
            found += sorted([*here.messages, *also], key=lambda each: each.sent_at)
    return found[:limit]


async def peek_dead(
    connection: RedisConnection, what: str, keys: QueueKeys, limit: int
) -> list[StoredMessage]:
    """Up to `limit` of the oldest dead letters, by lane."""
    found = _Found(limit)
    await _read(connection, what, keys.dead, found, None)
    return sorted(found.messages, key=lambda each: each.lane)


async def _read(connection: RedisConnection, what: str, stream: str, found: _Found, lane: int | None) -> None:
    start = "-"
    while found.room:
        count = min(found.room, _PAGE)
        entries = await connection.call(what, "XRANGE", stream, start, "+", "COUNT", count)
        for entry, fields in entries:
            values = by_name(fields)
            found.add(int(values.get(b"l", 0)) if lane is None else lane, values)
            start = f"({entry.decode()}"
        if len(entries) < count:
            return


async def _delayed(
    connection: RedisConnection, what: str, keys: QueueKeys, first: int
) -> list[tuple[int, list[bytes]]]:
    page: list[tuple[int, list[bytes]]] = await connection.run(
        what, scripts.QUEUE_PEEK_DELAYED, (keys.delayed, keys.held), (first, first + _PAGE - 1)
    )
    return page
