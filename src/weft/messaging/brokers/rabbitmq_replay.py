"""Giving a new group what was published before it was there.

The past is in the topic's stream, the future comes through the bindings of the group's queues. The bindings
are made first. Then everything is copied out of the stream up to a marker that is put behind what was there
when the bindings were made: so nothing is missing, and what was published at that very moment comes twice.
Groups with partitions get the past in queues of their own, which are emptied first: so the order of each
partition is kept. Nobody sees the group before the copy is complete; one that is interrupted is begun anew.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from collections.abc import Sequence

from aiormq.abc import DeliveredMessage

from weft.errors import InvalidRequest
from weft.messaging.broker import Start
from weft.messaging.brokers.rabbitmq_batch import Inbox, tag_of
from weft.messaging.brokers.rabbitmq_link import Link
from weft.messaging.brokers.rabbitmq_publisher import Publisher
from weft.messaging.brokers.rabbitmq_wire import Parcel, mark_of, marker, offset_of, parcel_of
from weft.model.subtopic import matches

END = "end of replay"
"""The marker behind the last message of a partition's past."""

_UNDER_WAY = 0.5
"""Seconds in which what was sent on to the group's queues or not has reached the stream."""

_PREFETCH = 200


async def copy_past(
    link: Link, publisher: Publisher, log: str, *, start: Start, pattern: str, lanes: Sequence[str], what: str
) -> None:
    """Put what is in the stream `log` from `start` on, as far as it matches, into `lanes`, by partition.

    Raises Unavailable, Denied, NotFound if the stream is not there.
    """
    await asyncio.sleep(_UNDER_WAY)
    mark = secrets.token_hex(8)
    await publisher.publish("", log, b"", marker(mark), what=what)
    end = await _offset_of_mark(link, log, mark, what=what)
    first = 0 if start.sequence is None else max(0, start.sequence - 1)
    if first >= end:
        return
    inbox = Inbox()
    async with link.errand(what, timed=False) as channel:
        await channel.basic_qos(prefetch_count=_PREFETCH)
        await channel.basic_consume(log, inbox.take, arguments={"x-stream-offset": first})
        ended = False
        while not ended:
            async with asyncio.timeout(link.timeout):
                await inbox.more()
            batch = inbox.empty()
            ended = any(offset_of(each) >= end for each in batch)
            parcels = [_parcel(each) for each in batch if offset_of(each) < end]
            await asyncio.gather(
                *(
                    publisher.put(lanes[parcel.lane], parcel, what=what)
                    for parcel in parcels
                    if parcel is not None and _is_wanted(parcel, start, pattern, len(lanes))
                )
            )
            if batch:
                await channel.basic_ack(tag_of(batch[-1]), multiple=True)


async def mark_ends(publisher: Publisher, lanes: Sequence[str], *, what: str) -> None:
    """Put a marker behind what is in each of those queues."""
    for each in lanes:
        await publisher.publish("", each, b"", marker(END), what=what)


async def first_of(link: Link, log: str, *, what: str) -> DeliveredMessage | None:
    """The oldest message in a stream; None if there is none. Raises NotFound if the stream is not there."""
    inbox = Inbox()
    async with link.errand(what) as channel:
        await channel.basic_qos(prefetch_count=1)
        await channel.basic_consume(log, inbox.take, arguments={"x-stream-offset": "first"})
        try:
            async with asyncio.timeout(_UNDER_WAY):
                await inbox.more()
        except TimeoutError:
            return None
    return inbox.messages[0]


async def _offset_of_mark(link: Link, log: str, mark: str, *, what: str) -> int:
    inbox = Inbox()
    async with link.errand(what) as channel:
        await channel.basic_qos(prefetch_count=_PREFETCH)
        await channel.basic_consume(log, inbox.take, arguments={"x-stream-offset": "last"})
        while True:
            await inbox.more()
            batch = inbox.empty()
            for each in batch:
                if mark_of(each) == mark:
                    return offset_of(each)
            await channel.basic_ack(tag_of(batch[-1]), multiple=True)


def _parcel(delivered: DeliveredMessage) -> Parcel | None:
    """What was published; None for what is none of Weft's messages."""
    try:
        parcel = parcel_of(delivered)
    except InvalidRequest:
        return None
    return parcel.at(offset_of(delivered) + 1)


def _is_wanted(parcel: Parcel, start: Start, pattern: str, lanes: int) -> bool:
    since = -math.inf if start.time is None else start.time
    return parcel.lane < lanes and parcel.sent_at >= since and matches(pattern, parcel.subtopic)
