"""Queues over HTTP: how they stand, what lies in them, and what operators do about it."""

from __future__ import annotations

import base64
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Audited, CurrentMessaging
from weft.controlplane.queue_figures import Figures
from weft.errors import InvalidRequest
from weft.messaging.broker import Priority, StoredMessage
from weft.model.names import MAX_NAME_LENGTH
from weft.model.operator import Scope

router = APIRouter(prefix="/v1/queue-status", tags=["queues"])

_READERS = [Depends(requires(Scope.VIEWER))]
_WRITERS = [Depends(requires(Scope.OPERATOR))]

MAX_PEEK = 1000
MAX_SHOWN_BYTES = 64 * 1024
"""Of a message's body more is not shown."""

Name = Annotated[str, Path(max_length=MAX_NAME_LENGTH)]


class QueueStatus(Body):
    """How a queue stands."""

    name: str
    ready: int
    """Tasks that a worker could take now."""
    in_flight: int
    """Tasks that workers have."""
    delayed: int
    """Tasks whose time has not come: scheduled, or before their next attempt."""
    dead: int
    """Tasks that failed, and wait for somebody to look."""
    oldest_age: float | None
    """Seconds since the oldest that waits or is under way was submitted."""
    enqueued_total: int | None
    """Tasks ever taken, where the broker counts them."""
    arrival_rate: float | None
    """Tasks submitted in a second."""
    service_time: float | None
    """Seconds that a worker has a task, in the mean of those finished last."""
    concurrency: int
    """Tasks that one instance works on at once."""
    max_length: int
    desired_workers: int | None
    """How many instances keep up with what arrives and what waits: for autoscalers."""


class QueueStatusList(Body):
    """All queues, by name."""

    items: list[QueueStatus]


class MessageOut(Body):
    """A message that lies in a queue."""

    id: str
    priority: str
    sent_at: float
    """Seconds since 1970."""
    reason: str
    """Of a dead letter: why it is one."""
    headers: dict[str, str]
    body: str | None
    """As text, if it is one; at most 64 KiB of it."""
    body_base64: str | None
    """Otherwise."""


class MessageList(Body):
    """The oldest messages, by priority."""

    items: list[MessageOut]


class RedriveIn(Body):
    """Which dead letters go back into the queue."""

    ids: Annotated[list[Annotated[str, Field(max_length=256)]], Field(max_length=MAX_PEEK)] | None = None
    """Of tasks; if omitted, all (at most 1,000 at once)."""


class Count(Body):
    """How many messages it was done to."""

    count: int


@router.get("", dependencies=_READERS)
async def list_queues(messaging: CurrentMessaging) -> QueueStatusList:
    """How all queues stood a moment ago."""
    specs = messaging.brokerage.queues
    current = messaging.figures.current
    return QueueStatusList(
        items=[
            _status(name, current[name], specs[name].concurrency, specs[name].max_length)
            for name in sorted(current)
            if name in specs
        ]
    )


@router.get("/{name}", dependencies=_READERS)
async def status(messaging: CurrentMessaging, name: Name) -> QueueStatus:
    """How a queue stands now."""
    spec = await messaging.brokerage.queue(name)
    return _status(name, await messaging.figures.look(name), spec.concurrency, spec.max_length)


@router.get("/{name}/messages", dependencies=_WRITERS)
async def peek(
    messaging: CurrentMessaging,
    name: Name,
    *,
    dead: bool = False,
    limit: Annotated[int, Query(ge=1, le=MAX_PEEK)] = 20,
) -> MessageList:
    """Look at the oldest messages, or dead letters, where they are."""
    await messaging.brokerage.queue(name)
    found = await messaging.brokerage.broker.peek(name, limit=limit, dead=dead)
    return MessageList(items=[_message(each) for each in found])


@router.post("/{name}/redrive", dependencies=_WRITERS)
async def redrive_dead_letters(
    messaging: CurrentMessaging, changes: Audited, name: Name, body: RedriveIn
) -> Count:
    """Have tasks that failed tried anew, as if they had never been."""
    await messaging.brokerage.queue(name)
    count = await messaging.redrive(name, body.ids)
    changes.note("redrive queue", f"queue/{name}", count=str(count))
    return Count(count=count)


@router.post("/{name}/purge", dependencies=_WRITERS)
async def purge(
    messaging: CurrentMessaging, changes: Audited, name: Name, *, dead: bool = False, confirm: str = ""
) -> Count:
    """Throw away what waits, its tasks cancelled, or the dead letters; `confirm` must be the queue's name."""
    await messaging.brokerage.queue(name)
    if confirm != name:
        raise InvalidRequest(f"what is thrown away is gone: give confirm={name} if you mean it")
    count = await messaging.purge(name, dead=dead)
    changes.note("purge queue", f"queue/{name}", dead=str(dead).lower(), count=str(count))
    return Count(count=count)


def _status(name: str, figures: Figures, concurrency: int, max_length: int) -> QueueStatus:
    stats = figures.stats
    return QueueStatus(
        name=name,
        ready=stats.ready,
        in_flight=stats.in_flight,
        delayed=stats.delayed,
        dead=stats.dead,
        oldest_age=stats.oldest_age,
        enqueued_total=stats.enqueued_total,
        arrival_rate=figures.arrival_rate,
        service_time=figures.service_time,
        concurrency=concurrency,
        max_length=max_length,
        desired_workers=figures.desired_workers,
    )


def _message(stored: StoredMessage) -> MessageOut:
    body = stored.message.body[:MAX_SHOWN_BYTES]
    try:
        text, encoded = body.decode(), None
    except UnicodeDecodeError:
        text, encoded = None, base64.b64encode(body).decode()
    return MessageOut(
        id=stored.message.id,
        priority=Priority(stored.lane).name.lower(),
        sent_at=stored.sent_at,
        reason=stored.reason,
        headers=dict(stored.message.headers),
        body=text,
        body_base64=encoded,
    )
