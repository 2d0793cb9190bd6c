"""How messages look in NATS: their headers are NATS headers, beside some of Weft's own.

Headers of messages have names in lower case, those of NATS and Weft begin with a capital letter, so neither
is taken for the other. The subject under which NATS takes the answer to a delivery tells all about it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

from weft.errors import InvalidRequest
from weft.messaging.broker import DEAD_REASON_LENGTH
from weft.messaging.message import Message

ID = "Weft-Id"
SENT_AT = "Weft-Sent-At"
"""Seconds since 1970, where the message was stored later than it was sent: delayed, dead, put back."""
REASON = "Weft-Reason"
"""Of a dead letter, percent-encoded."""
SCHEDULE = "Nats-Schedule"
SCHEDULE_TARGET = "Nats-Schedule-Target"
NATS_MESSAGE_ID = "Nats-Msg-Id"
"""NATS stores no second message with the same one within a stream's duplicate window."""

STATUS = "Status"
DESCRIPTION = "Description"
NO_RESPONDERS = "503"
"""The status of an answer that the server gives in place of somebody who is not there."""

ACK = b"+ACK"
NAK = b"-NAK"
IN_PROGRESS = b"+WPI"
TERMINATE = b"+TERM"

_QUOTE = '"'
_OLD_TOKENS = 9
_NANOSECONDS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """What the reply subject of a delivery tells of it."""

    stream: str
    consumer: str
    deliveries: int
    sequence: int
    stored_at: float
    """Seconds since 1970."""


def parse_reply(reply: str) -> Place | None:
    """What the reply subject tells; None if the message is no delivery of JetStream's."""
    # $JS.ACK.[<domain>.<account>.]<stream>.<consumer>.<deliveries>.<sequence>.<count>.<time>.<pending>[.…]
    tokens = reply.split(".")
    if len(tokens) < _OLD_TOKENS or tokens[0] != "$JS" or tokens[1] != "ACK":
        return None
    first = 2 if len(tokens) == _OLD_TOKENS else 4
    stream, consumer, deliveries, sequence, _, stored_at = tokens[first : first + 6]
    return Place(stream, consumer, int(deliveries), int(sequence), int(stored_at) / _NANOSECONDS)


def headers_of(message: Message) -> dict[str, str]:
    """The NATS headers that stand for a message's id and headers."""
    headers = {ID: message.id}
    for name, value in message.headers.items():
        headers[name] = _protected(value)
    return headers


def message_of(headers: Mapping[str, str] | None, body: bytes) -> Message:
    """The message that came with these NATS headers. Raises InvalidRequest if it is none of Weft's."""
    headers = headers or {}
    if ID not in headers:
        raise InvalidRequest("the message has no id: it was not sent by Weft")
    own = {
        name: value if not value.startswith(_QUOTE) else value[1:-1]
        for name, value in headers.items()
        if not "A" <= name[0] <= "Z"
    }
    return Message(headers[ID], body, own)


def sent_at(headers: Mapping[str, str] | None, stored_at: float) -> float:
    """When a message was sent that was stored at `stored_at`; both in seconds since 1970."""
    try:
        return float(headers[SENT_AT]) if headers and SENT_AT in headers else stored_at
    except ValueError:
        return stored_at


def reason_header(reason: str) -> str:
    """How the reason of a dead letter is written into a header."""
    return quote(reason[:DEAD_REASON_LENGTH], safe=" !#$&'()*+,/:;=?@[]{}", errors="replace")


def reason_of(headers: Mapping[str, str] | None) -> str:
    """The reason of a dead letter."""
    return unquote((headers or {}).get(REASON, ""))


def schedule(now: float, delay: float) -> str:
    """A NATS schedule for `delay` seconds after `now`, in seconds since 1970."""
    # NATS reads fractions of a second to any length, Python writes millionths: rounded up, never too early.
    at = datetime.fromtimestamp(now + delay, UTC) + timedelta(microseconds=1)
    return f"@at {at:%Y-%m-%dT%H:%M:%S.%f}Z"


def parse_time(text: str) -> float:
    """Seconds since 1970 of a time that NATS wrote. Raises ValueError."""
    # It writes nanoseconds, which Python does not read; the digits are its own affair.
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    whole = datetime.fromisoformat(seconds).replace(tzinfo=UTC).timestamp()
    return whole + (float(f"0.{fraction}") if fraction else 0.0)


def _protected(value: str) -> str:
    # Spaces at the ends of a header's value get lost on the way.
    if not value or value[0] in ' "' or value[-1] == " ":
        return f'"{value}"'
    return value
