"""Server-Sent Events: the bytes of a stream's items, and a decoder that says no to endless ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

from weft.sdk.wire import MAX_EVENT_BYTES

HEARTBEAT = b":\n\n"
"""A comment: keeps a silent connection alive, and is no event."""

# A carriage return at the very end may be half of a CRLF, so it ends no line yet.
_LINE_END = re.compile(rb"\r\n|\n|\r(?!\Z)")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream."""

    data: str
    name: str = "message"
    id: str = ""
    """Where it has one: from there on a stream that broke can be asked for again."""


def encode_event(data: bytes, name: str = "") -> bytes:
    """Return the bytes of one event; `data` is JSON on one line."""
    prefix = f"event: {name}\n".encode() if name else b""
    return b"%bdata: %b\n\n" % (prefix, data)


class EventDecoder:
    """Turns chunks of bytes into events. Knows no `retry`: Weft's streams have none."""

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._limit = max_event_bytes
        self._unfinished_line = [b""]
        self._unfinished_bytes = 0
        self._data: list[bytes] = []
        self._data_bytes = 0
        self._name = self._id = ""

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes.

        Raises ValueError when an unfinished event is over the limit, or the text of one is not UTF-8.
        """
        lines = self._lines(chunk)
        events = [event for line in lines if (event := self._take(line)) is not None]
        if self._unfinished_bytes + self._data_bytes > self._limit:
            raise ValueError(f"an event of the stream is larger than {self._limit} bytes")
        return events

    def _lines(self, chunk: bytes) -> list[bytes]:
        held_back = self._unfinished_line[-1].endswith(b"\r")
        self._unfinished_line.append(chunk)
        self._unfinished_bytes += len(chunk)
        # Joined only when a line may have ended: a long line in many chunks must not be copied for each.
        if not (held_back or b"\n" in chunk or b"\r" in chunk):
            return []
        *lines, rest = _LINE_END.split(b"".join(self._unfinished_line))
        self._unfinished_line = [rest]
        self._unfinished_bytes = len(rest)
        return lines

    def _take(self, line: bytes) -> Event | None:
        if not line:
            return self._finish()
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
            self._data_bytes += len(value) + 1
        elif field == b"event":
            self._name = value.decode()
        elif field == b"id":
            self._id = value.decode()
        return None

    def _finish(self) -> Event | None:
        data, name, identity = self._data, self._name, self._id
        self._data, self._data_bytes, self._name, self._id = [], 0, "", ""
        if not data and not name:
            return None
        return Event(b"\n".join(data).decode(), name or "message", identity)
