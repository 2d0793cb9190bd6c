"""How much of spans is taken."""

from __future__ import annotations

from typing import Final

MAX_REQUEST_BYTES: Final = 4 * 1024 * 1024
"""Of one request, unpacked: as much as gRPC's servers take by default."""

MAX_GROUPS: Final = 1000
"""Resources in one request, and libraries (scopes) in all of them together."""

MAX_UNDER_WAY_BYTES: Final = 32 * 1024 * 1024
"""Of all requests that are worked on at once; beyond it senders are told to come again."""

MAX_UNDER_WAY_BYTES_OF_SENDER: Final = MAX_UNDER_WAY_BYTES // 2
"""Likewise of one sender, so that others are not told to."""

MAX_REQUESTS: Final = 64
"""Requests by HTTP that are being read or worked on at once: each can have a request's bytes."""

MAX_REQUESTS_OF_SENDER: Final = 16
"""Likewise of one sender: a collector sends ten at once by default."""

MAX_SPAN_BYTES: Final = 256 * 1024
"""Of one span, after all else was cut; a larger one is left out."""

MAX_ATTRIBUTES: Final = 128
"""Of a span, of an event, of a resource; OpenTelemetry's own default."""

MAX_EVENTS: Final = 128
"""Of a span; likewise its links."""

MAX_VALUE_BYTES: Final = 16 * 1024
"""Of the value of an attribute, beyond which it is cut."""

MAX_NAME: Final = 256
"""Characters of a span's name, and of an attribute's."""

MAX_MESSAGE: Final = 1024
"""Characters of a status's message."""

PIECE_BYTES: Final = 400 * 1024
"""Of spans that are passed on together, but for one that is larger alone."""

PIECE_SPANS: Final = 500
"""Likewise: to keep so many takes about ten milliseconds."""

CUT: Final = " [cut]"
"""What a value that was cut ends with."""
