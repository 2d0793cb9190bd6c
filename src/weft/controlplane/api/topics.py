"""Topics over HTTP, for operators: how they stand, publishing, reading along, having groups read again."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Admitted, Audited, CurrentMessaging
from weft.controlplane.api.events import event, event_stream
from weft.controlplane.api.messaging import StartIn
from weft.controlplane.messaging import Messaging
from weft.errors import InvalidRequest
from weft.events.binding import decode
from weft.events.json_format import to_json
from weft.messaging.broker import BrokerAdmin, Delivery, GroupSettings, Start
from weft.messaging.message import Message
from weft.model.names import MAX_NAME_LENGTH
from weft.model.operator import Scope
from weft.model.subtopic import parse_topic, parse_topic_pattern

router = APIRouter(prefix="/v1/topic-status", tags=["topics"])

_READERS = [Depends(requires(Scope.VIEWER))]
_WRITERS = [Depends(requires(Scope.OPERATOR))]

READER_EXPIRY = 60.0
"""Seconds after which the group of somebody who reads along is removed once nobody reads."""

READER_PREFIX = "_reader-"
"""Begins the names of their groups: no agent type begins so. They are not shown."""

PULL_WAIT = 5.0
"""Seconds that one look for messages takes at most."""

MAX_BATCH = 64

MAX_LATEST = 200

LATEST_WAIT = 1.0
"""Seconds without a further event after which the latest are taken to be all there."""

Name = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]


class GroupStatus(Body):
    """How a group stands."""

    name: str
    """An agent type; with `_` and an instance, that instance's own."""
    pending: int
    """Events that it has not been given yet."""
    in_flight: int


class TopicStatus(Body):
    """How a topic stands."""

    name: str
    messages: int
    size: int
    """Bytes."""
    first_sequence: int
    last_sequence: int
    partitions: int
    groups: list[GroupStatus]


class TopicStatusList(Body):
    """All topics, by name."""

    items: list[TopicStatus]


class EventIn(Body):
    """An event to publish."""

    topic: Annotated[str, Field(min_length=1, max_length=300)]
    """`orders`, or below it `orders.created`."""
    data: Any = None
    """JSON."""
    type: Annotated[str, Field(max_length=256)] | None = None
    """Of the CloudEvent; by default the topic."""
    key: Annotated[str, Field(max_length=256)] | None = None
    """Events with the same one stay in order, in a topic with partitions."""
    subject: Annotated[str, Field(max_length=1024)] | None = None


class Published(Body):
    """What became of an event."""

    sequence: int
    """In the topic; 0 where the broker does not tell."""


class LatestEvents(Body):
    """The events of a topic that were published last, the newest first."""

    items: list[dict[str, Any]]
    """Each with `topic`, `sequence`, `publishedAt` and `event`: a CloudEvent in JSON."""


@router.get("", dependencies=_READERS)
async def list_topics(messaging: CurrentMessaging) -> TopicStatusList:
    """How all topics stand."""
    return TopicStatusList(
        items=[await _status(messaging, name) for name in sorted(messaging.brokerage.topics)]
    )


@router.get("/{name}", dependencies=_READERS)
async def status(messaging: CurrentMessaging, name: Name) -> TopicStatus:
    """How a topic and its groups stand."""
    return await _status(messaging, name)


@router.post("/publish", status_code=202, dependencies=_WRITERS)
async def publish(
    messaging: CurrentMessaging, caller: CurrentCaller, changes: Audited, body: EventIn
) -> Published:
    """Publish an event."""
    sequence = await messaging.events.publish(
        body.topic,
        body.data,
        type=body.type,
        key=body.key,
        subject=body.subject,
        extensions={"weftpublisher": caller.who},
    )
    changes.note("publish event", f"topic/{parse_topic(body.topic)[0]}")
    return Published(sequence=sequence)


@router.get("/{name}/events", dependencies=_WRITERS)
async def read_along(
    messaging: CurrentMessaging,
    admitted: Admitted,
    name: Name,
    pattern: Annotated[str, Query(max_length=300)] = "",
    sequence: Annotated[int | None, Query(ge=1)] = None,
    time: Annotated[float | None, Query(ge=0)] = None,
) -> StreamingResponse:
    """Every event that is published from now on, or since a sequence or time, as Server-Sent Events.

    Each is `event` with a CloudEvent in JSON, `topic` and `sequence` beside. Encrypted events come without
    their data.
    """
    spec = await messaging.brokerage.topic(name)
    if sequence is not None and time is not None:
        raise InvalidRequest("give a sequence or a time to begin at, not both")
    subtopics = parse_topic_pattern(f"{name}.{pattern}").pattern if pattern else ""
    settings = _reader(name, subtopics, Start(sequence, time))
    broker = messaging.brokerage.broker
    await broker.declare_group(settings)
    return event_stream(_events(broker, settings, encrypted=spec.encrypted), admitted)


@router.get("/{name}/latest", dependencies=_WRITERS)
async def latest(
    messaging: CurrentMessaging, name: Name, limit: Annotated[int, Query(ge=1, le=MAX_LATEST)] = 50
) -> LatestEvents:
    """The events that were published last, as they lie there; encrypted ones come without their data."""
    spec = await messaging.brokerage.topic(name)
    broker = messaging.brokerage.broker
    stats = await broker.topic_stats(name)
    if not stats.messages:
        return LatestEvents(items=[])
    start = Start(sequence=max(1, stats.first_sequence, stats.last_sequence - limit + 1))
    group = _reader(name, "", start)
    await broker.declare_group(group)
    try:
        found = await _pulled(broker, group, limit)
    finally:
        await broker.remove_group(group.topic, group.name)
    documents = [_document(name, each, encrypted=spec.encrypted) for each in found]
    return LatestEvents(items=sorted(documents, key=lambda each: -each["sequence"])[:limit])


@router.post("/{name}/groups/{group}/replay", status_code=204, dependencies=_WRITERS)
async def replay(
    messaging: CurrentMessaging,
    changes: Audited,
    name: Name,
    group: Annotated[str, Path(max_length=130)],
    body: StartIn,
) -> None:
    """Have a group get again everything from a sequence or time on."""
    await messaging.brokerage.replay(name, group, body.value)
    changes.note("replay topic", f"topic/{name}", group=group)


async def _status(messaging: Messaging, name: str) -> TopicStatus:
    spec = await messaging.brokerage.topic(name)
    stats = await messaging.brokerage.broker.topic_stats(name)
    return TopicStatus(
        name=name,
        messages=stats.messages,
        size=stats.size,
        first_sequence=stats.first_sequence,
        last_sequence=stats.last_sequence,
        partitions=spec.partitions,
        groups=[
            GroupStatus(name=each.name, pending=each.pending, in_flight=each.in_flight)
            for each in stats.groups
            if not each.name.startswith(READER_PREFIX)
        ],
    )


def _reader(topic: str, pattern: str, start: Start) -> GroupSettings:
    """A group of somebody who reads along."""
    return GroupSettings(
        topic, f"{READER_PREFIX}{secrets.token_hex(8)}", pattern, start, expires=READER_EXPIRY
    )


async def _pulled(broker: BrokerAdmin, group: GroupSettings, limit: int) -> list[Delivery]:
    """What a new group gets, `limit` at most, until nothing comes for LATEST_WAIT."""
    found: list[Delivery] = []
    consumer = await broker.group_consumer(group.topic, group.name)
    try:
        while len(found) < limit:
            pulled = await consumer.pull(min(MAX_BATCH, limit - len(found)), wait=LATEST_WAIT)
            if not pulled:
                break
            found += pulled
            for each in pulled:
                await each.ack()
    finally:
        await consumer.aclose()
    return found


async def _events(broker: BrokerAdmin, group: GroupSettings, *, encrypted: bool) -> AsyncGenerator[bytes]:
    consumer = await broker.group_consumer(group.topic, group.name)
    try:
        while True:
            for each in await consumer.pull(MAX_BATCH, wait=PULL_WAIT):
                yield event("event", json.dumps(_document(group.topic, each, encrypted=encrypted)))
                await each.ack()
    finally:
        await consumer.aclose()
        await broker.remove_group(group.topic, group.name)


def _document(topic: str, delivery: Delivery, *, encrypted: bool) -> dict[str, Any]:
    where = f"{topic}.{delivery.subtopic}" if delivery.subtopic else topic
    beside = {"topic": where, "sequence": delivery.sequence, "publishedAt": delivery.sent_at}
    return {**beside, "event": _shown(delivery.message, encrypted=encrypted)}


def _shown(message: Message, *, encrypted: bool) -> dict[str, Any]:
    if encrypted:
        return {"id": message.id, "encrypted": True}
    try:
        shown: dict[str, Any] = json.loads(to_json(decode(message.headers, message.body)))
    except InvalidRequest as error:
        return {"id": message.id, "invalid": error.detail}
    return shown
