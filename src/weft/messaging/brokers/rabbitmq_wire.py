"""Messages as RabbitMQ has them."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic

from weft.errors import InvalidRequest
from weft.messaging.message import Message

_OWN = "x-broker-"
_HEADER = "h-"
"""Before the names of a message's headers: RabbitMQ has some of its own, such as x-death."""

STREAM_OFFSET = "x-stream-offset"

_MICROSECONDS = 1_000_000
"""The client sends floats with single precision, in which a time is known to a minute."""

_publications = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Parcel:
    """A message with what a broker has to know of it."""

    message: Message
    lane: int = 0
    subtopic: str = ""
    sent_at: float = 0.0
    """Seconds since 1970."""
    deliveries: int = 0
    """How often it was delivered before it was last put into a queue."""
    returns: int = 0
    """How often it was delivered out of that queue and came back, as RabbitMQ counts it."""
    sequence: int = 0
    due: float = 0.0
    """Seconds since 1970 before which it is not to be delivered."""
    reason: str = ""
    """Of a dead letter."""

    @property
    def delivered(self) -> int:
        """How often it was delivered, this time not included."""
        return self.deliveries + self.returns

    def anew(self, *, deliveries: int, due: float = 0.0, reason: str = "") -> Parcel:
        """The same, to be put into another queue."""
        return replace(self, deliveries=deliveries, returns=0, due=due, reason=reason)

    def at(self, sequence: int) -> Parcel:
        """The same, of which is known where it is in its topic."""
        return replace(self, sequence=sequence)


def new_parcel(message: Message, *, lane: int, subtopic: str = "", due: float = 0.0) -> Parcel:
    """A message that is sent now."""
    return Parcel(message, lane, subtopic, sent_at=time.time(), due=due)


def properties(parcel: Parcel) -> Basic.Properties:
    """The properties it has in RabbitMQ."""
    headers: dict[str, Any] = {_HEADER + name: value for name, value in parcel.message.headers.items()}
    own = {
        "id": parcel.message.id,
        "sent": round(parcel.sent_at * _MICROSECONDS),
        "lane": parcel.lane,
        "subtopic": parcel.subtopic,
        "deliveries": parcel.deliveries,
        "sequence": parcel.sequence,
        "due": round(parcel.due * _MICROSECONDS),
        "reason": parcel.reason,
    }
    headers.update({_OWN + name: value for name, value in own.items() if value})
    # The client finds what was returned to it by this id, so none is ever used twice.
    return Basic.Properties(headers=headers, delivery_mode=2, message_id=str(next(_publications)))


def marker(mark: str) -> Basic.Properties:
    """The properties of what is no message but tells those who read that they have come so far."""
    number = str(next(_publications))
    return Basic.Properties(headers={f"{_OWN}mark": mark}, delivery_mode=2, message_id=number)


def mark_of(delivered: DeliveredMessage) -> str:
    """What a marker says; empty for a message."""
    return _text(delivered.header.properties.headers or {}, f"{_OWN}mark")


def parcel_of(delivered: DeliveredMessage) -> Parcel:
    """What was put into a queue. Raises InvalidRequest if that was not done by Weft."""
    headers = delivered.header.properties.headers or {}
    message = Message(
        _text(headers, f"{_OWN}id"),
        bytes(delivered.body),
        {
            name.removeprefix(_HEADER): value
            for name, value in headers.items()
            if name.startswith(_HEADER) and isinstance(value, str)
        },
    )
    return Parcel(
        message,
        lane=_number(headers, f"{_OWN}lane"),
        subtopic=_text(headers, f"{_OWN}subtopic"),
        sent_at=_time(headers, f"{_OWN}sent"),
        deliveries=_number(headers, f"{_OWN}deliveries"),
        returns=_number(headers, "x-delivery-count"),
        sequence=_number(headers, f"{_OWN}sequence"),
        due=_time(headers, f"{_OWN}due"),
        reason=_text(headers, f"{_OWN}reason"),
    )


def offset_of(delivered: DeliveredMessage) -> int:
    """Where it is in its stream, from 0."""
    return _number(delivered.header.properties.headers or {}, STREAM_OFFSET)


def _text(headers: Mapping[str, Any], name: str) -> str:
    value = headers.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequest(f"the header {name} of a message is no text: not Weft put it there")
    return value


def _number(headers: Mapping[str, Any], name: str) -> int:
    value = headers.get(name, 0)
    if not isinstance(value, int) or value < 0:
        raise InvalidRequest(f"the header {name} of a message is no number: not Weft put it there")
    return value


def _time(headers: Mapping[str, Any], name: str) -> float:
    return _number(headers, name) / _MICROSECONDS
