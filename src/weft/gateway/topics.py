"""Events published by callers of a gateway: CloudEvents over HTTP in all three modes, or any JSON."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from fastapi.responses import Response

from weft.errors import InvalidRequest, Unavailable
from weft.events.binding import STRUCTURED_MEDIA_TYPE, decode
from weft.events.json_format import JSON_MEDIA_TYPE, from_json
from weft.events.publisher import EventPublisher
from weft.gateway.caller import Caller
from weft.gateway.parts import CurrentCaller, CurrentGateway, Gateway
from weft.gateway.strict_json import Body, JsonAnswer, strict_json
from weft.gateway.submission import MAX_BATCH, PROBLEMS, Problem
from weft.gateway.submitting import passed_on
from weft.model.cloud_event import PARTITION_KEY, CloudEvent
from weft.model.subtopic import parse_topic
from weft.work.spans import publishing

BATCH_MEDIA_TYPE = "application/cloudevents-batch+json"

SUBMITTER_EXTENSION = "weftsubmitter"
"""Extension of every event that comes by a gateway: who published it, as the gateway found out."""

_OWN_EXTENSIONS = "weft"
_BINARY = "ce-specversion"
_JSON = {JSON_MEDIA_TYPE, ""}

router = APIRouter(prefix="/v1/topics", tags=["events"], responses=PROBLEMS)


class PublishedEvent(Body):
    """What became of an event."""

    id: str
    sequence: int
    """Its place in the topic; 0 where the broker does not tell."""


class Published(Body):
    """What became of the events of a request."""

    events: list[PublishedEvent]


@dataclass(frozen=True, slots=True)
class PlainEvent:
    """What becomes of JSON that is no CloudEvent yet."""

    source: str
    type: str
    key: str
    """What has the same one stays in order; empty: none."""

    def holding(self, data: bytes) -> CloudEvent:
        """The event of that data."""
        return CloudEvent(
            id=uuid.uuid4().hex,
            source=self.source,
            type=self.type,
            time=datetime.now(UTC),
            datacontenttype=JSON_MEDIA_TYPE,
            extensions={PARTITION_KEY: self.key} if self.key else {},
            data=data,
        )


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": schema}
            for media_type, schema in {
                STRUCTURED_MEDIA_TYPE: {"type": "object"},
                BATCH_MEDIA_TYPE: {"type": "array", "items": {"type": "object"}, "maxItems": MAX_BATCH},
                JSON_MEDIA_TYPE: {},
            }.items()
        },
    }
}


@router.post(
    "/{topic}",
    status_code=202,
    response_class=JsonAnswer,
    openapi_extra=_BODY,
    responses={
        202: {"model": Published, "description": "They are stored"},
        404: {"model": Problem, "description": "No such topic, or this gateway publishes nothing"},
    },
)
async def publish(
    request: Request,
    topic: str,
    gateway: CurrentGateway,
    caller: CurrentCaller,
    event_type: Annotated[str, Query(alias="type", max_length=256)] = "",
    key: Annotated[str, Query(max_length=256)] = "",
) -> Response:
    """Publish to a topic, or below it (`orders.created`).

    CloudEvents in binary, structured or batch mode; any other JSON becomes the data of an event of `type`
    (by default the topic) and `key` (what has the same one stays in order).
    """
    name, _subtopic = parse_topic(topic)
    await gateway.rights.check_publish(caller, name)
    publisher = _publisher(gateway)
    plain = PlainEvent(f"/gateway/{gateway.parts.name}", event_type or topic, key)
    events = _events(request, plain, await request.body())
    published = []
    for event in events:
        marked = _marked(event, caller)
        passed = passed_on(request.headers, caller)
        with publishing(gateway.parts.tracer, topic, passed) as (_, headers):
            sequence = await publisher.publish_event(topic, marked, headers=headers)
        published.append({"id": event.id, "sequence": sequence})
    return JsonAnswer({"events": published}, 202)


def _publisher(gateway: Gateway) -> EventPublisher:
    if gateway.parts.events is None:
        raise Unavailable("this gateway has no topics to publish to")
    return gateway.parts.events


def _events(request: Request, plain: PlainEvent, body: bytes) -> Sequence[CloudEvent]:
    """The events in a body. Raises InvalidRequest if one of them is none: then none is published."""
    headers = dict(request.headers)
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type == BATCH_MEDIA_TYPE:
        return _batch(body)
    if media_type == STRUCTURED_MEDIA_TYPE or _BINARY in headers:
        return [decode(headers, body)]
    if media_type not in _JSON:
        raise InvalidRequest(
            f"{media_type[:64]!r} is neither JSON nor a CloudEvent: send {_BINARY} and the other attributes, "
            f"or {STRUCTURED_MEDIA_TYPE}"
        )
    strict_json(body)
    return [plain.holding(body)]


def _batch(body: bytes) -> Sequence[CloudEvent]:
    documents: Any = strict_json(body)
    if not isinstance(documents, list) or not 1 <= len(documents) <= MAX_BATCH:
        raise InvalidRequest(f"a batch is a JSON array of 1 to {MAX_BATCH} events")
    return [from_json(json.dumps(each, ensure_ascii=False).encode(errors="replace")) for each in documents]


def _marked(event: CloudEvent, caller: Caller) -> CloudEvent:
    # What Weft itself tells of events (who published them, why they are dead letters) nobody outside tells.
    own = {name: value for name, value in event.extensions.items() if not name.startswith(_OWN_EXTENSIONS)}
    return replace(event, extensions={**own, SUBMITTER_EXTENSION: caller.submitter})
