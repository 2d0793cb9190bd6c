"""W3C trace context: which trace a call belongs to, below which span of it, and whether it is recorded."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Final, Self

_TRACEPARENT: Final = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)
_SAMPLED: Final = 0x01


@dataclass(frozen=True, slots=True)
class TraceContext:
    """One span, as those below it know it."""

    trace_id: str
    """32 hexadecimal digits."""
    span_id: str
    """16 hexadecimal digits."""
    sampled: bool = False

    @classmethod
    def parse(cls, traceparent: str | None) -> Self | None:
        """What a `traceparent` says; None if it is none."""
        found = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
        return cls(found[1], found[2], bool(int(found[3], 16) & _SAMPLED)) if found is not None else None

    @classmethod
    def root(cls, *, sampled: bool) -> Self:
        """What a trace begins with that has no span yet.

        Its span is none that anybody records, and is known for that: its id is the end of the trace's.
        """
        trace_id = secrets.token_hex(16)
        return cls(trace_id, trace_id[16:], sampled)

    def child(self) -> TraceContext:
        """A new span below this one."""
        return TraceContext(self.trace_id, secrets.token_hex(8), self.sampled)

    @property
    def is_root(self) -> bool:
        """Whether this is no span but the beginning of a trace, as `root` makes it."""
        return self.span_id == self.trace_id[16:]

    @property
    def traceparent(self) -> str:
        """As the header has it."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


def is_sampled(traceparent: str | None) -> bool:
    """Whether what is done below `traceparent` is to be recorded."""
    # Before anything is parsed: nearly all calls are none of these.
    if traceparent is None or len(traceparent) < 55 or traceparent[53:55] == "00":
        return False
    context = TraceContext.parse(traceparent)
    return context is not None and context.sampled
