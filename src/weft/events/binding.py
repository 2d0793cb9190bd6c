"""CloudEvents in headers and a body: as HTTP has them, and messages of topics likewise.

In *binary* mode the body is the event's data, and its attributes are headers `ce-…`, percent-encoded; in
*structured* mode the body is the whole event in JSON. Who reads takes either.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, unquote_to_bytes

from weft.errors import InvalidRequest
from weft.events.json_format import from_json, to_json
from weft.model.cloud_event import CloudEvent, from_attributes

CONTENT_TYPE = "content-type"
STRUCTURED_MEDIA_TYPE = "application/cloudevents+json"

_PREFIX = "ce-"
_CLOUD_EVENTS = "application/cloudevents"
_UNENCODED = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) not in '"%')
_PLAIN = re.compile(r"[\x21\x23\x24\x26-\x7e]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event, ready to be sent."""

    headers: dict[str, str]
    """Names in lower case, values in printable ASCII."""
    body: bytes


def to_binary(event: CloudEvent) -> Encoded:
    """The event in binary mode."""
    attributes = event.attributes()
    media_type = attributes.pop("datacontenttype", None)
    headers = {_PREFIX + name: _encoded(value) for name, value in attributes.items()}
    if media_type is not None:
        headers[CONTENT_TYPE] = media_type
    return Encoded(headers, event.data or b"")


def to_structured(event: CloudEvent) -> Encoded:
    """The event in structured mode."""
    return Encoded({CONTENT_TYPE: STRUCTURED_MEDIA_TYPE}, to_json(event))


def decode(headers: Mapping[str, str], body: bytes) -> CloudEvent:
    """The event in headers (names in lower case) and a body. Raises InvalidRequest if there is none."""
    media_type = headers.get(CONTENT_TYPE)
    if media_type is not None:
        essence = media_type.partition(";")[0].strip().lower()
        if essence == STRUCTURED_MEDIA_TYPE:
            return from_json(body)
        if essence.startswith(_CLOUD_EVENTS):
            raise InvalidRequest(f"events in {essence[:64]} are not understood: send {STRUCTURED_MEDIA_TYPE}")
    attributes = {
        name.removeprefix(_PREFIX): _decoded(name, value)
        for name, value in headers.items()
        if name.startswith(_PREFIX)
    }
    if "datacontenttype" in attributes:
        raise InvalidRequest(f"ce-datacontenttype must not be there: {CONTENT_TYPE} says it")
    if media_type is not None:
        attributes["datacontenttype"] = media_type
    return from_attributes(attributes, body)


def _encoded(value: str) -> str:
    return value if _PLAIN.fullmatch(value) else quote(value, safe=_UNENCODED)


def _decoded(name: str, value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    # Older versions of the specification had values with spaces in quotes.
    value = _QUOTED.sub(lambda match: _ESCAPE.sub(r"\1", match[1]), value)
    try:
        return unquote_to_bytes(value).decode()
    except ValueError as error:
        raise InvalidRequest(f"header {name[:64]!r} is no percent-encoded UTF-8") from error
