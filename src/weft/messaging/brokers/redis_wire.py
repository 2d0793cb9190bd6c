"""How a message stands in an entry of a stream: names and values, one after the other."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from weft.errors import InvalidRequest
from weft.messaging.message import Message

Fields = Sequence[bytes]


def message_fields(message: Message) -> list[str | bytes]:
    """Its id, body and headers."""
    fields: list[str | bytes] = ["i", message.id, "b", message.body]
    if message.headers:
        fields += ["h", json.dumps(dict(message.headers), separators=(",", ":"))]
    return fields


def size_of(message: Message) -> int:
    """Bytes that it is counted as."""
    headers = sum(len(name) + len(value) for name, value in message.headers.items())
    return len(message.id) + len(message.body) + headers + 64


def by_name(fields: Fields) -> Mapping[bytes, bytes]:
    """The values of an entry."""
    return dict(zip(fields[::2], fields[1::2], strict=True))


def message_of(values: Mapping[bytes, bytes]) -> Message:
    """The message in an entry. Raises InvalidRequest for what Weft would not have written."""
    try:
        headers = json.loads(values[b"h"]) if b"h" in values else {}
        return Message(values[b"i"].decode(), values[b"b"], headers)
    except (KeyError, ValueError, AttributeError, TypeError) as error:
        raise InvalidRequest("an entry in Redis is no message: somebody else has written it") from error


def sent_at(values: Mapping[bytes, bytes]) -> float:
    """Seconds since 1970."""
    return int(values[b"s"]) / 1000
