"""The traces that a replica keeps in memory: the latest, within a bound on bytes and on age.

A span is kept as it is on the wire, beside a summary of its trace: so a hundred thousand of them are some
dozen megabytes, and few objects for Python's garbage collector to look through. What does not fit any more
goes trace by trace, the oldest first; those with errors last, as long as they take up no more than half.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Final

from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, Span

from weft.controlplane.telemetry.metrics import TOO_LONG, SpanMetrics
from weft.controlplane.telemetry.trace_summary import (
    CONTEXT,
    MAX_MARKS,
    SERVICE,
    Glance,
    Marks,
    Origin,
    glance,
)
from weft.controlplane.telemetry.turns import Turn

MAX_SPANS: Final = 5000
"""Of one trace; what comes beyond is not kept, and that is told of it."""

MAX_ORIGIN_TEXT: Final = 256
"""Characters of what a resource says of whose it is; the rest is left out."""

_PLACE: Final = 4  # bytes that stand for an origin
_SPAN_OVERHEAD: Final = 180  # bytes, measured: of Python's, for one span
_TRACE_OVERHEAD: Final = 900  # likewise, for one trace

_REPORTER = "weft.reporter"
_RESOURCE = {"service.name": 0, "service.instance.id": 1, "service.version": 2, _REPORTER: 3}


class Trace:
    """What is kept of one trace."""

    __slots__ = (
        "added", "attempts", "cut", "end", "errors", "id", "marks", "name", "provisional", "root",
        "root_start", "service", "size", "spans", "start",
    )  # fmt: skip

    def __init__(self, trace_id: bytes, added: float, first: Glance) -> None:
        self.id = trace_id
        self.added = added
        """When its first span came, in seconds of the store's clock."""
        self.start = first.start
        self.end = first.end
        self.root = False
        """Whether its root has come."""
        self.root_start = first.start
        self.name = first.name
        self.service = first.service
        self.spans: dict[bytes, bytes] = {}
        """By id: four bytes that stand for the origin, and the span as it is on the wire."""
        self.provisional: set[bytes] | None = None
        """Spans that were made of access logs: Envoy's own of the same id say more."""
        self.attempts: dict[bytes, bytes] | None = None
        """First attempts that failed, by the calls that they are of."""
        self.marks: tuple[str, ...] = ()
        self.errors = 0
        self.size = _TRACE_OVERHEAD
        self.cut = False
        """Whether spans were left out."""

    @property
    def second(self) -> int:
        """When it began, in whole seconds since 1970."""
        return self.start // 1_000_000_000

    @property
    def services(self) -> list[str]:
        """Who has spans in it."""
        return sorted(each[1:] for each in self.marks if each[0] == SERVICE)

    @property
    def context(self) -> str:
        """The conversation it belongs to, the first one if it is several; empty if none."""
        return next((each[1:] for each in self.marks if each[0] == CONTEXT), "")

    def add(self, seen: Glance, data: bytes) -> None:
        """A span of it, of which `seen` is told."""
        self.spans[seen.span_id] = data
        self.size += len(data) + _SPAN_OVERHEAD
        self.errors += seen.failed
        self.start = min(self.start, seen.start)
        self.end = max(self.end, seen.end)
        if self._tells_more(seen):
            self.root, self.root_start = seen.is_root, seen.start
            self.name, self.service = seen.name, seen.service
        for mark in seen.marks:
            if mark not in self.marks and len(self.marks) < MAX_MARKS:
                self.marks += (mark,)

    def _tells_more(self, seen: Glance) -> bool:
        """Whether the trace is to be called by the span `seen`."""
        if seen.is_root != self.root:
            return seen.is_root
        return seen.start < self.root_start


@dataclass(frozen=True, slots=True)
class Kept:
    """How much is kept."""

    spans: int
    traces: int
    bytes: int
    origins: int
    """Whose they are: different resources."""
    oldest: float | None
    """When the oldest trace began, in seconds since 1970."""


class TraceStore:
    """Keeps traces."""

    def __init__(
        self,
        metrics: SpanMetrics,
        *,
        limit: int,
        age: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """At most `limit` bytes are kept, for `age` seconds from a trace's first span."""
        self._metrics = metrics
        self._limit = limit
        self._age = age
        self._clock = clock
        self._good: dict[bytes, Trace] = {}
        self._bad: dict[bytes, Trace] = {}
        """Those with errors. Both in the order in which they came to be."""
        self._by_second: dict[int, set[bytes]] = {}
        self._size = 0
        self._bad_size = 0
        self._spans = 0
        self._marks = Marks()
        self._origins = _Origins()

    def add(self, group: ResourceSpans) -> None:
        """Keep spans of one resource; those that are there already are not kept twice."""
        origin = _origin(group)
        place = self._origins.place(origin)
        for scope in group.scope_spans:
            for span in scope.spans:
                self._add(span, origin, place)
        self._origins.release(place)
        self.trim()

    def trim(self) -> None:
        """Let go of what is too old, or too much."""
        oldest = self._clock() - self._age
        for traces in (self._good, self._bad):
            while (first := next(iter(traces.values()), None)) is not None and first.added < oldest:
                self._forget(first)
        while self._size > self._limit:
            crowded = self._bad_size > self._limit // 2 or not self._good
            self._forget(next(iter((self._bad if crowded else self._good).values())))
        self._metrics.kept(self._spans, len(self._good) + len(self._bad), self._size)

    def get(self, trace_id: bytes) -> Trace | None:
        """The trace of that id, if it is kept."""
        return self._good.get(trace_id) or self._bad.get(trace_id)

    async def newest(self, since: int, until: int) -> AsyncIterator[Trace]:
        """The traces that began from `since` to before `until`, in seconds since 1970, the latest first.

        Lets others have their turn now and then; a trace that changes meanwhile may be left out.
        """
        turn = Turn()
        for second in sorted((each for each in self._by_second if since <= each < until), reverse=True):
            found = [trace for each in self._by_second.get(second, ()) if (trace := self.get(each))]
            found.sort(key=lambda trace: (trace.start, trace.id), reverse=True)
            for trace in found:
                await turn.pause()
                yield trace

    def spans(self, trace: Trace) -> list[tuple[Origin, bytes]]:
        """The spans of `trace`, which is kept now: whose each is, and itself as it is on the wire."""
        return [(self._origins.at(data[:_PLACE]), data[_PLACE:]) for data in trace.spans.values()]

    @property
    def kept(self) -> Kept:
        """How much is kept."""
        oldest = min(self._by_second, default=None)
        traces = len(self._good) + len(self._bad)
        began = None if oldest is None else float(oldest)
        return Kept(self._spans, traces, self._size, len(self._origins), began)

    def _add(self, span: Span, origin: Origin, place: bytes) -> None:
        trace_id = span.trace_id
        seen = glance(span, origin, self._marks)
        trace = self.get(trace_id)
        if trace is None:
            trace = Trace(trace_id, self._clock(), seen)
            self._good[trace_id] = trace
            self._by_second.setdefault(trace.second, set()).add(trace_id)
            self._size += trace.size
        elif not self._is_news(trace, seen):
            return
        if len(trace.spans) >= MAX_SPANS:
            trace.cut = True
            self._metrics.lost(TOO_LONG, 1)
            return
        self._note(trace, seen)
        self._put(trace, seen, place + span.SerializeToString())

    def _is_news(self, trace: Trace, seen: Glance) -> bool:
        """Whether `trace` lacks the span `seen`; what it has in its place is gone."""
        if seen.span_id in trace.spans:
            return self._replaces(trace, seen)
        if not seen.attempt_of:
            return True
        call = trace.spans.get(seen.attempt_of)
        return call is None or not self._is_single(call)

    def _replaces(self, trace: Trace, seen: Glance) -> bool:
        if seen.is_provisional or not trace.provisional or seen.span_id not in trace.provisional:
            return False
        trace.provisional.discard(seen.span_id)
        # What it told of an error the one that takes its place tells too.
        trace.errors -= 1
        self._remove(trace, seen.span_id)
        return True

    def _is_single(self, call: bytes) -> bool:
        """Whether the span that is kept as `call` is of a call of one attempt."""
        origin = self._origins.at(call[:_PLACE])
        return glance(Span.FromString(call[_PLACE:]), origin, self._marks).is_single

    def _note(self, trace: Trace, seen: Glance) -> None:
        """What will have to be known when other spans come."""
        if seen.is_provisional:
            trace.provisional = trace.provisional or set()
            trace.provisional.add(seen.span_id)
        if seen.attempt_of:
            trace.attempts = trace.attempts or {}
            trace.attempts[seen.attempt_of] = seen.span_id
        elif seen.is_single and trace.attempts and seen.span_id in trace.attempts:
            self._remove(trace, trace.attempts.pop(seen.span_id))

    def _remove(self, trace: Trace, span_id: bytes) -> None:
        data = trace.spans.pop(span_id)
        self._origins.release(data[:_PLACE])
        size = len(data) + _SPAN_OVERHEAD
        trace.size -= size
        self._size -= size
        self._bad_size -= size if trace.id in self._bad else 0
        self._spans -= 1

    def _put(self, trace: Trace, seen: Glance, data: bytes) -> None:
        size, second = trace.size, trace.second
        trace.add(seen, data)
        self._origins.hold(data[:_PLACE])
        self._size += trace.size - size
        self._spans += 1
        if trace.second != second:
            self._leave_second(second, trace.id)
            self._by_second.setdefault(trace.second, set()).add(trace.id)
        if trace.id in self._bad:
            self._bad_size += trace.size - size
        elif trace.errors:
            self._bad[trace.id] = self._good.pop(trace.id)
            self._bad_size += trace.size

    def _forget(self, trace: Trace) -> None:
        if self._good.pop(trace.id, None) is None:
            del self._bad[trace.id]
            self._bad_size -= trace.size
        self._leave_second(trace.second, trace.id)
        self._size -= trace.size
        self._spans -= len(trace.spans)
        for data in trace.spans.values():
            self._origins.release(data[:_PLACE])

    def _leave_second(self, second: int, trace_id: bytes) -> None:
        there = self._by_second[second]
        there.discard(trace_id)
        if not there:
            del self._by_second[second]


class _Origins:
    """The resources that spans are of, each kept once, and only while there are spans of it."""

    def __init__(self) -> None:
        self._places: dict[Origin, bytes] = {}
        self._at: dict[bytes, Origin] = {}
        self._held: dict[bytes, int] = {}
        self._next = 0

    def place(self, origin: Origin) -> bytes:
        """What stands for `origin` in spans, held once."""
        place = self._places.get(origin)
        if place is None:
            place = self._places[origin] = self._free()
            self._at[place] = origin
            self._held[place] = 0
        self.hold(place)
        return place

    def hold(self, place: bytes) -> None:
        """One more needs it."""
        self._held[place] += 1

    def release(self, place: bytes) -> None:
        """One who held it needs it no more."""
        self._held[place] -= 1
        if not self._held[place]:
            del self._places[self._at.pop(place)], self._held[place]

    def at(self, place: bytes) -> Origin:
        return self._at[place]

    def __len__(self) -> int:
        return len(self._at)

    def _free(self) -> bytes:
        while True:
            place = self._next.to_bytes(_PLACE, "big")
            self._next = (self._next + 1) % 256**_PLACE
            if place not in self._at:
                return place


def _origin(group: ResourceSpans) -> Origin:
    told = ["", "", "", ""]
    for each in group.resource.attributes:
        place = _RESOURCE.get(each.key)
        if place is not None:
            told[place] = each.value.string_value[:MAX_ORIGIN_TEXT]
    return Origin(*told)
