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

_UNFILTERED = 4
"""So many times `limit` from the end is read without a filter, unless there is nothing of what is asked for
among the very last. For NATS counts first what is under a filter, and lets nobody write meanwhile: with a
million messages that takes it most of a second. What is rare there is rare altogether, in the usual case, and
quickly counted."""


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

    The filters are subjects, whole or with `>` at their ends. What `made` makes None of doesn't count;
    `before` is the sequence below which to look. Raises Unavailable, saying that Weft cannot `what`, Denied,
    StartOver if the connection was lost, or nats-py's NotFoundError.
    """
    state = await stream_state(connection, stream, what)
    end = state.last_seq + 1 if before is None else min(before, state.last_seq + 1)
    near = end - limit * _UNFILTERED
    found: list[E] = []
    reach = limit
    while state.messages and len(found) < limit and end > state.first_seq:
        start = max(end - reach, state.first_seq, 1)
        if end > near:
            start = max(start, near)
        window: deque[E] = deque(maxlen=limit - len(found))
        async with deliveries(
            connection,
            stream,
            filters if start < near else [],
            policy=DeliverPolicy.BY_START_SEQUENCE,
            start=start,
            what=what,
        ) as messages:
            pending = messages.pending
            while pending:
                message = await messages.next()
                if message is None:
                    break
                pending = message.metadata.num_pending
                if message.metadata.sequence.stream >= end:
                    break
                each = made(message) if _passes(message.subject, filters) else None
                if each is not None:
                    window.append(each)
        found.extend(reversed(window))
        end = start
        near = near if found else end
        reach *= _WIDER
    return found


def _passes(subject: str, filters: list[str]) -> bool:
    return any(subject == each or (each[-1] == ">" and subject.startswith(each[:-1])) for each in filters)


async def stream_state(connection: NatsConnection, stream: str, what: str) -> StreamState:
    """From where to where `stream` goes. Raises Unavailable, saying that Weft cannot `what`, or Denied."""
    info = await connection.call(
        what,
        lambda jetstream: jetstream.stream_info(stream),
        subjects=[f"{connection.api}.STREAM.INFO.{stream}"],
    )
    return info.state
