"""How much of a conversation is kept, and for how long."""

from __future__ import annotations

from dataclasses import dataclass, fields

from weft.errors import InvalidRequest

MAX_MESSAGE_BYTES = 900 * 1024
"""Of one message as JSON."""

MAX_STATE_BYTES = 256 * 1024
"""Of the state as JSON."""

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ContextLimits:
    """The limits of one context, given when it begins. The defaults are the most there may be."""

    messages: int = 10_000
    message_bytes: int = MAX_MESSAGE_BYTES
    """Of one message as JSON."""
    state_bytes: int = MAX_STATE_BYTES
    """Of the state as JSON."""
    artifacts: int = 100
    artifact_bytes: int = 64 * _MIB
    """Of one artifact."""
    total_artifact_bytes: int = 256 * _MIB
    """Of all artifacts together."""
    lifetime: float = 7 * 86400.0
    """Seconds from its beginning, after which nothing of it is left."""

    def __post_init__(self) -> None:
        """Raises InvalidRequest for a limit that is too high, or below 1."""
        for each in fields(self):
            value, most = getattr(self, each.name), each.default
            if not 1 <= value <= most:  # true of NaN, too
                raise InvalidRequest(f"a context's limit {each.name} is {value!r}: it may be 1 to {most:g}")


DEFAULT_LIMITS = ContextLimits()
