"""Queues in NATS, as the control plane declares them and looks after them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

from nats.aio.msg import Msg

from weft.errors import InvalidRequest, NotFound
from weft.messaging.broker import QueueSettings, QueueStats, StoredMessage
from weft.messaging.brokers.nats_api import JetStreamApi
from weft.messaging.brokers.nats_consumer import queue_consumer
from weft.messaging.brokers.nats_declare import declare_consumer, declare_stream, remove_stream
from weft.messaging.brokers.nats_streams import lane_consumers, queue_streams
from weft.messaging.brokers.nats_wire import (
    ID,
    NATS_MESSAGE_ID,
    SCHEDULE_TARGET,
    SENT_AT,
    message_of,
    parse_time,
    reason_of,
    sent_at,
)
from weft.model.message_subjects import (
    LANES,
    dead_stream,
    dead_subject,
    dead_subjects,
    due_subject,
    lane_consumer,
    lane_subject,
    later_stream,
    later_subjects,
    queue_stream,
)

_PIECE = 256
"""Messages that are looked at, or purged, in one go."""

_SUBJECT = "Nats-Subject"
_SEQUENCE = "Nats-Sequence"
_STORED_AT = "Nats-Time-Stamp"


async def declare_queue(api: JetStreamApi, settings: QueueSettings, replicas: int) -> None:
    """Have a queue, or change it."""
    what = f"declare queue {settings.name!r}"
    for config in queue_streams(settings, replicas):
        await declare_stream(api, what, config)
    for stream, config in lane_consumers(settings):
        await declare_consumer(api, what, stream, config)


async def remove_queue(api: JetStreamApi, queue: str) -> None:
    """Remove a queue with all it holds."""
    for stream in (queue_stream(queue), later_stream(queue), dead_stream(queue)):
        await remove_stream(api, f"remove queue {queue!r}", stream)


async def queue_stats(api: JetStreamApi, queue: str) -> QueueStats:
    """How a queue stands."""
    what = f"look at queue {queue!r}"
    streams = (queue_stream(queue), later_stream(queue))
    now, later, dead, *lanes = await asyncio.gather(
        *(api.ask(what, f"STREAM.INFO.{each}") for each in (*streams, dead_stream(queue))),
        *(
            api.ask(what, f"CONSUMER.INFO.{stream}.{lane_consumer(lane)}")
            for stream in streams
            for lane in LANES
        ),
    )
    due = sum(each["num_pending"] + each["num_ack_pending"] for each in lanes[len(LANES) :])
    delayed = max(later["state"]["messages"] - due, 0)
    return QueueStats(
        ready=sum(each["num_pending"] for each in lanes),
        in_flight=sum(each["num_ack_pending"] for each in lanes),
        delayed=delayed,
        dead=dead["state"]["messages"],
        oldest_age=await _oldest_age(api, what, queue, now["state"], due=due),
        # Of each delayed message NATS makes a second one when its time has come.
        enqueued_total=now["state"]["last_seq"] + (later["state"]["last_seq"] + delayed) // 2,
    )


async def peek(api: JetStreamApi, queue: str, limit: int, *, dead: bool) -> Sequence[StoredMessage]:
    """Up to `limit` of the oldest messages, by lane."""
    what = f"look into queue {queue!r}"
    # Asked first, as it says what is wrong if there is no such queue, or it may not be looked into.
    await api.ask(what, f"STREAM.INFO.{dead_stream(queue)}")
    found: list[StoredMessage] = []
    delayed = [] if dead else await _delayed(api, what, queue, limit)
    for lane in LANES:
        if len(found) >= limit:
            break
        if dead:
            found += await _stored(api, what, dead_stream(queue), dead_subject(queue, lane), lane, limit)
            continue
        some = [each for each in delayed if each.lane == lane]
        some += await _stored(api, what, queue_stream(queue), lane_subject(queue, lane), lane, limit)
        some += await _stored(api, what, later_stream(queue), due_subject(queue, lane), lane, limit)
        found += sorted(some, key=lambda each: each.sent_at)
    return found[:limit]


async def redrive(api: JetStreamApi, queue: str, ids: Collection[str]) -> int:
    """Put dead letters of these ids back into their lanes."""
    what = f"put dead letters of queue {queue!r} back"
    wanted = set(ids)
    stream, start, moved = dead_stream(queue), 1, 0
    await api.ask(what, f"STREAM.INFO.{stream}")
    while letters := await api.messages(what, stream, dead_subjects(queue), _PIECE, start=start):
        for letter in letters:
            headers = dict(letter.headers or {})
            start = int(headers[_SEQUENCE]) + 1
            if headers.get(ID) in wanted:
                await _put_back(api, what, queue, letter, headers)
                moved += 1
    return moved


async def purge(api: JetStreamApi, queue: str, *, dead: bool) -> int:
    """Throw away what waits, or the dead letters."""
    what = f"purge queue {queue!r}"
    if dead:
        return await _purge_stream(api, what, dead_stream(queue), dead_subjects(queue))
    purged = await _purge_stream(api, what, later_stream(queue), later_subjects(queue))
    # Purging its stream would take away what is under way, too: so it is pulled.
    consumer = await queue_consumer(api, queue)
    try:
        while deliveries := await consumer.pull(_PIECE, wait=0):
            for each in deliveries:
                await each.ack()
            purged += len(deliveries)
        await _settled(api)
    finally:
        await consumer.aclose()
    return purged


async def _settled(api: JetStreamApi) -> None:
    """Return when NATS has dealt with the acknowledgements."""
    client = await api.connection.client()
    with suppress(TimeoutError):
        await client.flush()


async def _purge_stream(api: JetStreamApi, what: str, stream: str, subject: str) -> int:
    answer = await api.ask(what, f"STREAM.PURGE.{stream}", {"filter": subject})
    return int(answer.get("purged", 0))


async def _put_back(api: JetStreamApi, what: str, queue: str, letter: Msg, headers: dict[str, str]) -> None:
    subject, sequence = headers[_SUBJECT], headers[_SEQUENCE]
    lane = int(subject.rpartition(".")[2])
    kept = {
        name: value for name, value in headers.items() if name in {ID, SENT_AT} or not "A" <= name[0] <= "Z"
    }
    # Done again after a crash in between, NATS knows it by its id; then it is deleted at last.
    kept[NATS_MESSAGE_ID] = f"{dead_stream(queue)}.{sequence}.{headers[_STORED_AT]}"
    await api.publish(what, lane_subject(queue, lane), letter.data, kept)
    with suppress(NotFound):
        body = {"seq": int(sequence), "no_erase": True}
        await api.ask(what, f"STREAM.MSG.DELETE.{dead_stream(queue)}", body)


async def _oldest_age(
    api: JetStreamApi, what: str, queue: str, state: dict[str, Any], *, due: int
) -> float | None:
    times = []
    if state["messages"]:
        times.append(parse_time(state["first_ts"]))
        first = await api.messages(what, queue_stream(queue), f"queues.{queue}.*", 1)
        times += [sent_at(each.headers, parse_time((each.headers or {})[_STORED_AT])) for each in first]
    if due:
        for each in await api.messages(what, later_stream(queue), due_subject(queue, "*"), 1):
            times.append(sent_at(each.headers, parse_time((each.headers or {})[_STORED_AT])))
    return max(time.time() - min(times), 0.0) if times else None


async def _delayed(api: JetStreamApi, what: str, queue: str, limit: int) -> list[StoredMessage]:
    found = await api.messages(what, later_stream(queue), later_subjects(queue), limit)
    return list(_readable(found, None))


async def _stored(
    api: JetStreamApi, what: str, stream: str, subject: str, lane: int, limit: int
) -> list[StoredMessage]:
    return list(_readable(await api.messages(what, stream, subject, limit), lane))


def _readable(messages: Iterable[Msg], lane: int | None) -> Iterable[StoredMessage]:
    """What they are; `lane` is where they lie, None: where they are to go."""
    for each in messages:
        headers = each.headers or {}
        with suppress(InvalidRequest, ValueError, KeyError):
            where = int(headers[SCHEDULE_TARGET].rpartition(".")[2]) if lane is None else lane
            at = sent_at(headers, parse_time(headers[_STORED_AT]))
            yield StoredMessage(message_of(headers, each.data), where, at, reason_of(headers))
