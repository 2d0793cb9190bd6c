"""Reading a stream from its end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TypeVar

from nats.aio.msg import Msg
from nats.js.api import DeliverPolicy, StreamState

from weft.store.nats_connection import NatsConnection
from weft.store.nats_deliveries import deliveries

E = TypeVar("E")

_WIDER = 8
"""How many times as far back each look goes as the one before, if too little was found."""


async def recent(
    connection: NatsConnection,
    stream: str,
    filters: list[str],
    made: Callable[[Msg], E | None],
    *,
    limit: int,
    before: int | None,
    what: str,
) -> list[E]:
    """What `made` makes of the last `limit` messages of `stream` under `filters`, the latest first.

    Those it makes None of don't count; `before` is the sequence below which to look. Raises Unavailable,
    saying that Weft cannot `what`, Denied, StartOver if the connection was lost, or nats-py's NotFoundError.
    """
    state = await stream_state(connection, stream, what)
    end = state.last_seq + 1 if before is None else min(before, state.last_seq + 1)
    found: list[E] = []
    reach = limit
    while state.messages and len(found) < limit and end > state.first_seq:
        start = max(end - reach, state.first_seq, 1)
        window: deque[E] = deque(maxlen=limit - len(found))
        async with deliveries(
            connection, stream, filters, policy=DeliverPolicy.BY_START_SEQUENCE, start=start, what=what
        ) as messages:
            pending = messages.pending
            while pending:
                message = await messages.next()
                if message is None:
                    break
                pending = message.metadata.num_pending
                if message.metadata.sequence.stream >= end:
                    break
                each = made(message)
                if each is not None:
                    window.append(each)
        found.extend(reversed(window))
        end = start
        reach *= _WIDER
    return found


async def stream_state(connection: NatsConnection, stream: str, what: str) -> StreamState:
    """From where to where `stream` goes. Raises Unavailable, saying that Weft cannot `what`, or Denied."""
    info = await connection.call(
        what,
        lambda jetstream: jetstream.stream_info(stream),
        subjects=[f"{connection.api}.STREAM.INFO.{stream}"],
        again=True,
    )
    return info.state
