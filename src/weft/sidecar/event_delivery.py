"""Events for an agent that does not use the SDK: each is a POST to its `/events`.

| format | body | headers |
|---|---|---|
| binary | the event's data | its attributes, as CloudEvents over HTTP have them |
| structured | the CloudEvent as JSON | |
| mesh | `{"topic": ..., "event": ...}`: the event's data | |

All have `x-weft-topic` (with the subtopic), `x-weft-delivery` (counted from 1), `x-weft-event` (the event's
id), and `traceparent`, `tracestate`, `baggage`, `x-weft-context`, `x-weft-budget` and `x-weft-hops` where
there are any.

| answer | event |
|---|---|
| 2xx | done with |
| 429, 503 with Retry-After | comes again then |
| 408, 409, 425, 429, 5xx and whatever else | comes again after the topic's back-off, `max_deliveries` times |
| other 4xx | dead letter |
| no connection | comes again after the topic's back-off; not counted as a failure |
| none in time | as 5xx |
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping

from weft.errors import InvalidRequest
from weft.events.binding import CONTENT_TYPE, Encoded, to_binary, to_structured
from weft.events.json_format import JSON_MEDIA_TYPE, is_json, parse_json
from weft.events.subscriber import ReceivedEvent
from weft.model.cloud_event import CloudEvent
from weft.model.event_format import EventFormat
from weft.sidecar.agent_answers import failure
from weft.sidecar.agent_client import AgentClient
from weft.tracing.tracer import NO_TRACER, Tracer
from weft.work.spans import below, processing_event

EVENTS_PATH = "/events"
TOPIC_HEADER = "x-weft-topic"
DELIVERY_HEADER = "x-weft-delivery"
EVENT_HEADER = "x-weft-event"

MAX_ANSWER_BYTES = 64 * 1024
"""What an answer has beyond it is not read: it is the status that counts."""

_RETRIED = frozenset({408, 409, 425, 429})


class EventDelivery:
    """Posts events to an agent: the handler of a Subscriber."""

    def __init__(
        self,
        agent: AgentClient,
        *,
        time_limit: float,
        event_format: EventFormat = EventFormat.BINARY,
        tracer: Tracer = NO_TRACER,
    ) -> None:
        """The agent has `time_limit` seconds to answer: the topic's visibility timeout, as a rule.

        `tracer` records each delivery.
        """
        self._agent = agent
        self._time_limit = time_limit
        self._format = event_format
        self._tracer = tracer

    async def __call__(self, received: ReceivedEvent) -> None:
        """Post one event. Returns when the agent has taken it, else raises what stands for its answer."""
        with processing_event(self._tracer, received) as span:
            await self._post(received, below(span, received.headers))

    async def _post(self, received: ReceivedEvent, passed_on: Mapping[str, str]) -> None:
        encoded = self._encoded(received)
        headers = {
            **encoded.headers,
            **passed_on,
            TOPIC_HEADER: received.name,
            DELIVERY_HEADER: str(received.deliveries),
        }
        event_id = received.event.id
        if event_id.isascii() and event_id.isprintable():
            headers[EVENT_HEADER] = event_id.strip()
        answer = await self._agent.post(
            EVENTS_PATH, headers, encoded.body, max_body=MAX_ANSWER_BYTES, timeout=self._time_limit
        )
        if not answer.ok:
            raise failure(answer, f"POST {EVENTS_PATH}", retried=_RETRIED)

    def _encoded(self, received: ReceivedEvent) -> Encoded:
        if self._format is EventFormat.BINARY:
            return to_binary(received.event)
        if self._format is EventFormat.STRUCTURED:
            return to_structured(received.event)
        topic = json.dumps(received.name).encode()
        body = b'{"topic":' + topic + b',"event":' + _data_as_json(received.event) + b"}"
        return Encoded({CONTENT_TYPE: JSON_MEDIA_TYPE}, body)


def _data_as_json(event: CloudEvent) -> bytes:
    """An event's data as JSON: a text where it is none, base64 where it is no text either."""
    data = event.data
    if data is None:
        return b"null"
    if event.datacontenttype is None or is_json(event.datacontenttype):
        try:
            parse_json(data, "data")
        except InvalidRequest:
            pass  # it only says it were
        else:
            return data
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = base64.b64encode(data).decode("ascii")
    return json.dumps(text).encode()
