"""CloudEvents as messages of topics.

In a topic that is not encrypted an event is in binary mode, so that whoever looks at the broker can read its
attributes. In one that is, it is in structured mode, and sealed: its attributes tell as much as its data.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping

from weft.errors import InvalidRequest
from weft.events.binding import CONTENT_TYPE, STRUCTURED_MEDIA_TYPE, decode, to_binary, to_structured
from weft.messaging.channel import Channel, ChannelKind
from weft.messaging.message import MAX_ID_LENGTH, Message
from weft.messaging.protection import Protection
from weft.model.call_budget import BUDGET_HEADER
from weft.model.cloud_event import TRACE_EXTENSIONS, CloudEvent
from weft.model.hops import HOPS_HEADER

_HEADER_VALUE = re.compile(r"[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?")

CONTEXT_HEADER = "x-weft-context"
"""The conversation that an event belongs to."""

BESIDE_HEADERS = (CONTEXT_HEADER, BUDGET_HEADER, HOPS_HEADER, "baggage")
"""What goes along beside an event, not in it: they are of the call tree that it was published in."""

_NONE: Mapping[str, str] = {}


async def message_for(
    event: CloudEvent,
    topic: str,
    protection: Protection,
    *,
    encrypted: bool,
    headers: Mapping[str, str] = _NONE,
) -> Message:
    """The message that carries `event` through `topic`, beside it what BESIDE_HEADERS name of `headers`.

    Raises InvalidRequest if it is too large, and what `protection` raises.
    """
    headers = {name: value for name in BESIDE_HEADERS if (value := headers.get(name))}
    if not encrypted:
        encoded = to_binary(event)
        return Message(_message_id(event.id), encoded.body, {**encoded.headers, **headers})
    encoded, message_id = to_structured(event), uuid.uuid4().hex
    body = await protection.seal(
        Channel(ChannelKind.TOPIC, topic), message_id, STRUCTURED_MEDIA_TYPE, encoded.body, encrypted=True
    )
    return Message(message_id, body, {**encoded.headers, **headers})


async def event_in(message: Message, topic: str, protection: Protection, *, encrypted: bool) -> CloudEvent:
    """The event that a message of `topic` carries.

    Raises InvalidRequest if it carries none, or is not sealed though the topic is `encrypted`; else what
    `protection` raises.
    """
    if not encrypted:
        return decode(message.headers, message.body)
    media_type = message.headers.get(CONTENT_TYPE, "")
    if media_type != STRUCTURED_MEDIA_TYPE:
        raise InvalidRequest(f"message {message.id} of the encrypted topic {topic!r} is no sealed CloudEvent")
    channel = Channel(ChannelKind.TOPIC, topic)
    body = await protection.open(channel, message.id, media_type, message.body, encrypted=True)
    return decode({CONTENT_TYPE: media_type}, body)


def passed_on(event: CloudEvent, message: Message) -> dict[str, str]:
    """Headers that whoever works on the event has to pass on in its calls: trace, conversation, limits."""
    found = {name: event.extensions.get(name, "") for name in TRACE_EXTENSIONS}
    found |= {name: message.headers.get(name, "") for name in BESIDE_HEADERS}
    # Extensions may hold any character, headers may not.
    return {name: value for name, value in found.items() if value and _HEADER_VALUE.fullmatch(value)}


def trace_in(headers: Mapping[str, str]) -> dict[str, str]:
    """The extensions that stand for the trace context in the headers of a call; none without one."""
    if not headers.get(TRACE_EXTENSIONS[0]):
        return {}
    return {name: headers[name] for name in TRACE_EXTENSIONS if headers.get(name)}


def _message_id(event_id: str) -> str:
    fits = len(event_id) <= MAX_ID_LENGTH and event_id.isascii() and event_id.isprintable()
    return event_id if fits and " " not in event_id else uuid.uuid4().hex
