"""What is known of a trace without a look at its spans: by it traces are found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

MAX_MARKS: Final = 128
"""Different things that are noted of one trace; a further one cannot be searched for."""

MAX_MARK: Final = 200
"""Characters of each."""

SERVICE: Final = "s"
DESTINATION: Final = "d"
CALLER: Final = "c"
CONTEXT: Final = "x"
NAME: Final = "n"
OTHER: Final = "o"

SOURCE: Final = "weft.source"
"""The attribute that says what a span was made of, where Envoy made no span."""

ACCESS_LOG: Final = "access-log"

_SOURCE, _ATTEMPT, _ATTEMPTS = "source", "attempt", "attempts"  # not noted, but looked at

_KINDS: Final = {
    "weft.destination": DESTINATION,
    "weft.caller": CALLER,
    "weft.context": CONTEXT,
    "gen_ai.conversation.id": CONTEXT,
    "weft.error": OTHER,
    "weft.task": OTHER,
    "gen_ai.request.model": OTHER,
    "gen_ai.tool.name": OTHER,
    SOURCE: _SOURCE,
    "weft.attempt": _ATTEMPT,
    "weft.attempts": _ATTEMPTS,
}
"""Attributes that are noted, and as what."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Whose a span is: its resource."""

    service: str
    instance: str
    version: str
    reporter: str


class Glance(NamedTuple):
    """What one span adds to the summary of its trace."""

    span_id: bytes
    is_root: bool
    name: str
    service: str
    start: int
    """Nanoseconds since 1970."""
    end: int
    failed: bool
    marks: tuple[str, ...]
    """A letter for the kind, and what is noted."""
    is_provisional: bool
    """Whether it was made of an access log: Envoy's own span of the same id says more."""
    attempt_of: bytes
    """The id of the call whose first attempt it is; empty: it is none."""
    is_single: bool
    """Whether it is of a call of one attempt, of which it says all there is to say itself."""


class Marks:
    """Keeps one of each text: traces have most of them in common."""

    def __init__(self, most: int = 50_000) -> None:
        self._known: dict[str, str] = {}
        self._most = most

    def of(self, kind: str, text: str) -> str:
        """What stands for `text` of `kind`."""
        mark = kind + text[:MAX_MARK]
        known = self._known.get(mark)
        if known is None:
            if len(self._known) >= self._most:
                self._known.clear()
            known = self._known[mark] = mark
        return known


def glance(span: Span, origin: Origin, marks: Marks) -> Glance:
    """What `span` says at a glance."""
    name = span.name
    noted = [marks.of(SERVICE, origin.service), marks.of(NAME, name)]
    provisional = single = False
    attempt = 0
    for each in span.attributes:
        kind = _KINDS.get(each.key)
        if kind is None:
            continue
        if kind is _SOURCE:
            provisional = each.value.string_value == ACCESS_LOG
        elif kind is _ATTEMPT:
            attempt = each.value.int_value
        elif kind is _ATTEMPTS:
            single = each.value.int_value == 1
        elif text := each.value.string_value:
            noted.append(marks.of(kind, _type_of(text) if kind is CALLER else text))
    parent = span.parent_span_id
    attempted = provisional and attempt > 0
    return Glance(
        span.span_id,
        # The SDK's `trace=True` makes up a parent from the trace's id: nobody has such a span.
        not parent or parent == span.trace_id[8:],
        noted[1][1:],
        noted[0][1:],
        span.start_time_unix_nano,
        span.end_time_unix_nano,
        # That an attempt failed is no failure of the trace: the call may have come to a good end.
        span.status.code == Status.STATUS_CODE_ERROR and not attempted,
        tuple(noted),
        provisional,
        parent if attempted and attempt == 1 else b"",
        single,
    )


def _type_of(caller: str) -> str:
    """The agent type in a SPIFFE ID; whatever else it is, as it is."""
    head, separator, rest = caller.partition("/agent/")
    return rest.partition("/")[0] if separator and head.startswith("spiffe://") else caller
