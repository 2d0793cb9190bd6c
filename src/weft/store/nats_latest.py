"""Reading a bucket from its end one message after the other, at the same cost however much is in it.

A consumer, by which `nats_recent` reads, has the server count first what it will deliver, and nobody may
write meanwhile: in a stream of a million keys that takes a tenth of a second, and more.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import TypeVar

from nats.aio.msg import Msg

from weft.store.nats_connection import NatsConnection
from weft.store.nats_recent import stream_state
from weft.store.nats_wire import NOT_FOUND_STATUS, SEQUENCE, STATUS, stream_name

E = TypeVar("E")

_AT_ONCE = 64
"""Messages that are asked for at the same time."""

_REACH = 4
"""So many times `limit` is looked at. In a queue at work two of three sequences are gone: tasks were written
again since."""

_SUBJECT = "Nats-Subject"


async def latest(
    connection: NatsConnection,
    bucket: str,
    made: Callable[[str, int, Msg], E | None],
    *,
    limit: int,
    before: int | None,
    what: str,
) -> tuple[list[E], int]:
    """Up to `limit` of what `made` makes of the latest messages, and the sequence below which to look on.

    `made` gets a subject, a sequence and a message; what it makes None of doesn't count. If there is nothing
    among the first messages that are looked at, no others are. For buckets that are direct. Raises
    Unavailable, saying that Weft cannot `what`, or Denied.
    """
    state = await stream_state(connection, stream_name(bucket), what)
    end = state.last_seq + 1 if before is None else min(before, state.last_seq + 1)
    farthest = max(end - limit * _REACH, state.first_seq, 1)
    found: list[E] = []
    while end > farthest and len(found) < limit:
        start = max(end - _AT_ONCE, farthest)
        messages = await asyncio.gather(
            *(_message(connection, bucket, each, what) for each in range(end - 1, start - 1, -1))
        )
        for sequence, message in zip(range(end - 1, start - 1, -1), messages, strict=True):
            each = (
                None
                if message is None
                else made((message.headers or {}).get(_SUBJECT, ""), sequence, message)
            )
            if each is not None:
                found.append(each)
            if len(found) == limit:
                return found, sequence
        end = start
        if not found:
            break
    return found, end


async def _message(connection: NatsConnection, bucket: str, sequence: int, what: str) -> Msg | None:
    """The message at that place; None if it is gone."""
    place = f"{connection.api}.DIRECT.GET.{stream_name(bucket)}"
    message = await connection.request(what, place, json.dumps({"seq": sequence}).encode(), again=True)
    headers = message.headers or {}
    if headers.get(STATUS) == NOT_FOUND_STATUS:
        return None
    if headers.get(SEQUENCE) != str(sequence):
        raise connection.unavailable(what, ValueError("the answer is none of JetStream's"))
    return message
