"""What goes through topics and queues."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from weft.errors import InvalidRequest

MAX_BODY_BYTES = 960 * 1024
"""The largest body. NATS takes messages of 1 MiB, headers and the seal's overhead included."""

MAX_HEADERS_BYTES = 16 * 1024
"""Names and values together."""

MAX_ID_LENGTH = 128

_ID = re.compile(rf"[\x21-\x7e]{{1,{MAX_ID_LENGTH}}}")
_HEADER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]*")

RESERVED_PREFIX = "x-broker-"
"""Headers whose names begin so are a broker's own; messages that bring them are refused."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message. Making one raises InvalidRequest if a part of it is too large or has no form."""

    id: str
    """1 to 128 visible ASCII characters; the sender's to choose. Brokers don't look for repetitions."""
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case: letters, digits, hyphens; values in printable ASCII (percent-encode others)."""

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidRequest(f"a message id is 1 to {MAX_ID_LENGTH} visible ASCII characters")
        if len(self.body) > MAX_BODY_BYTES:
            raise InvalidRequest(
                f"message {self.id} has {len(self.body)} bytes, {MAX_BODY_BYTES} at most: "
                "put what is large elsewhere and send its address"
            )
        if sum(len(name) + len(value) for name, value in self.headers.items()) > MAX_HEADERS_BYTES:
            raise InvalidRequest(
                f"the headers of message {self.id} are larger than {MAX_HEADERS_BYTES} bytes"
            )
        for name, value in self.headers.items():
            if not _HEADER_NAME.fullmatch(name) or name.startswith(RESERVED_PREFIX):
                raise InvalidRequest(f"message {self.id}: {name[:64]!r} is no name for a header")
            if not _HEADER_VALUE.fullmatch(value):
                raise InvalidRequest(f"message {self.id}: the value of {name!r} is not printable ASCII")
