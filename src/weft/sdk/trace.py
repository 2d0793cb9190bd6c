"""W3C trace context, as far as it is needed to tell call trees apart: every tree is one trace."""

from __future__ import annotations

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?"
)


def new_traceparent() -> str:
    """The beginning of a new call tree. It is not sampled: nobody records it who has not decided to."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"


def trace_of(traceparent: str | None) -> str | None:
    """The id of the trace, 32 hexadecimal digits; None for what is no `traceparent`."""
    found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    return found[1] if found is not None else None
