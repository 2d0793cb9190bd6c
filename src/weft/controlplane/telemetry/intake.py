"""Taking spans in: whose they are is bound in, what is too much cut, what must not be kept taken out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

from weft.controlplane.telemetry.allowance import Allowances
from weft.controlplane.telemetry.envoy_spans import key_value, normalise
from weft.controlplane.telemetry.limits import (
    CUT,
    MAX_ATTRIBUTES,
    MAX_EVENTS,
    MAX_GROUPS,
    MAX_MESSAGE,
    MAX_NAME,
    MAX_SPAN_BYTES,
    MAX_UNDER_WAY_BYTES,
    MAX_UNDER_WAY_BYTES_OF_SENDER,
    MAX_VALUE_BYTES,
    PIECE_BYTES,
    PIECE_SPANS,
)
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.redaction import Redaction
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.telemetry.turns import Turn
from weft.controlplane.telemetry.under_way import UnderWay
from weft.errors import InvalidRequest, TooMany

REPORTER: Final = "weft.reporter"
"""The attribute of a resource that says who sent its spans. Nobody else's word for it is kept."""

_OF_ENVOY: Final = frozenset({"weft.caller", REPORTER})
"""What Envoy alone knows; said by others, it is left out."""

_SERVICE, _INSTANCE = "service.name", "service.instance.id"
_MAX_RESOURCE_BYTES: Final = 16 * 1024
_MAX_SCOPE_BYTES: Final = 4 * 1024
_LARGE: Final = (
    8 * 1024
)  # bytes; a smaller span has nothing to be cut for its size, and is soon looked through


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a request."""

    spans: int
    rejected: int
    reason: str
    """Why some were rejected, the first one's."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Spans of one resource, ready to be kept and passed on."""

    spans: ResourceSpans
    data: bytes
    """The same as TracesData; several of them in a row are TracesData too."""
    count: int


class Intake:
    """Takes spans in and hands them on in pieces."""

    def __init__(
        self,
        redaction: Callable[[], Redaction],
        hand_on: Callable[[Piece], None],
        metrics: SpanMetrics,
    ) -> None:
        """`redaction` gives what holds now; `hand_on` is called for each piece, and returns at once."""
        self._redaction = redaction
        self._hand_on = hand_on
        self._metrics = metrics
        detail = "too many spans are being taken in: send them again in a few seconds"
        self._under_way = UnderWay(MAX_UNDER_WAY_BYTES, MAX_UNDER_WAY_BYTES_OF_SENDER, detail)
        self._allowances = Allowances()

    async def take(self, groups: Sequence[ResourceSpans], size: int, reporter: Reporter) -> Taken:
        """Take the spans of a request of `size` bytes; `groups` are changed.

        Raises InvalidRequest where there are too many groups, and TooMany where too much is under way, of
        all or of this reporter.
        """
        with self.admitted(size, reporter):
            return await self.take_admitted(groups, reporter)

    @contextmanager
    def admitted(self, size: int, reporter: Reporter) -> Iterator[None]:
        """Have a request of `size` bytes be under way: read what is in it within the context, and take that.

        Raises TooMany.
        """
        with self._under_way.taking(reporter.who, size):
            wait = self._allowances.take(reporter.who, size)
            if wait:
                detail = f"{reporter.who} sends more spans than one may: send fewer, or sample less"
                raise TooMany(detail, retry_after=wait)
            yield

    async def take_admitted(self, groups: Sequence[ResourceSpans], reporter: Reporter) -> Taken:
        """Take the spans of a request that was admitted. Raises InvalidRequest for too many groups."""
        if len(groups) > MAX_GROUPS or sum(len(each.scope_spans) for each in groups) > MAX_GROUPS:
            raise InvalidRequest(f"more than {MAX_GROUPS} groups of spans in one request")
        return await self._take(groups, reporter)

    async def _take(self, groups: Iterable[ResourceSpans], reporter: Reporter) -> Taken:
        work = _Work(self._redaction(), reporter)
        taken = 0
        for group in groups:
            await work.pause()
            resource = work.resource(group.resource)
            for scope in group.scope_spans:
                await work.pause()
                async for piece in work.pieces(resource, scope):
                    taken += piece.count
                    self._hand_on(piece)
        self._metrics.taken(taken, work.rejected)
        return Taken(taken, work.rejected, work.reason)


class _Work:
    """On one request."""

    def __init__(self, redaction: Redaction, reporter: Reporter) -> None:
        self._redaction = redaction
        self._reporter = reporter
        self._turn = Turn()
        self.rejected = 0
        self.reason = ""

    async def pause(self) -> None:
        await self._turn.pause()

    def resource(self, given: Resource) -> Resource:
        if given.ByteSize() > _MAX_RESOURCE_BYTES:
            given = Resource(attributes=[_short(each) for each in given.attributes if each.key == _SERVICE])
        return _bound(given.SerializeToString(), self._reporter, self._redaction)

    async def pieces(self, resource: Resource, scope: ScopeSpans) -> AsyncIterator[Piece]:
        """The spans of `scope` that are good, in pieces; lets others have their turn in between."""
        if scope.scope.ByteSize() > _MAX_SCOPE_BYTES:
            scope.ClearField("scope")
        self._redaction.clean_scope(scope.scope)
        good: list[Span] = []
        size = 0
        for span in scope.spans:
            await self._turn.pause()
            length = await self._checked(span)
            if not length:
                continue
            if good and (size + length > PIECE_BYTES or len(good) == PIECE_SPANS):
                yield _piece(resource, scope, good)
                good, size = [], 0
            good.append(span)
            size += length
        if good:
            yield _piece(resource, scope, good)

    async def _checked(self, span: Span) -> int:
        """Have `span` be as it is to be kept; return its size, 0 if it cannot be."""
        wrong = _wrong(span)
        size = 0 if wrong else await self._cleaned(span)
        if size > MAX_SPAN_BYTES:
            wrong = f"a span of more than {MAX_SPAN_BYTES} bytes"
        if wrong:
            self.rejected += 1
            self.reason = self.reason or wrong
            return 0
        return size

    async def _cleaned(self, span: Span) -> int:
        self._normalise(span)
        data = span.SerializeToString()
        if len(data) > MAX_SPAN_BYTES:
            return len(data)
        if len(data) <= _LARGE:
            changed = self._redaction.clean(span, data)
        else:
            # It may take a tenth of a second, in many small steps.
            changed = await asyncio.to_thread(self._redaction.clean, span, data)
        return span.ByteSize() if changed else len(data)

    def _normalise(self, span: Span) -> None:
        _cut(span)
        if self._reporter.is_envoy:
            normalise(span, self._reporter.service)
        else:
            _leave_out(span, _OF_ENVOY)
        span.end_time_unix_nano = max(span.end_time_unix_nano, span.start_time_unix_nano)


def _wrong(span: Span) -> str:
    """Why `span` cannot be taken; empty: it can."""
    if len(span.trace_id) != 16 or not any(span.trace_id):
        return "a trace id that is not 16 bytes, or all zero"
    if len(span.span_id) != 8 or not any(span.span_id):
        return "a span id that is not 8 bytes, or all zero"
    if len(span.parent_span_id) not in {0, 8}:
        return "the id of a parent that is not 8 bytes"
    if not span.start_time_unix_nano:
        return "a span that says nothing of when it began"
    return ""


def _cut(span: Span) -> None:
    """Leave out of `span` what is too much of it."""
    if len(span.name) > MAX_NAME:
        span.name = span.name[:MAX_NAME]
    if len(span.attributes) > MAX_ATTRIBUTES:
        span.dropped_attributes_count += len(span.attributes) - MAX_ATTRIBUTES
        del span.attributes[MAX_ATTRIBUTES:]
    if len(span.events) > MAX_EVENTS:
        span.dropped_events_count += len(span.events) - MAX_EVENTS
        del span.events[MAX_EVENTS:]
    if len(span.links) > MAX_EVENTS:
        span.dropped_links_count += len(span.links) - MAX_EVENTS
        del span.links[MAX_EVENTS:]
    if span.ByteSize() > _LARGE:
        _cut_values(span)


def _cut_values(span: Span) -> None:
    span.status.message = span.status.message[:MAX_MESSAGE]
    for each in span.attributes:
        _cut_value(each)
    for attributes in (*(it.attributes for it in span.events), *(it.attributes for it in span.links)):
        del attributes[MAX_ATTRIBUTES:]
        for each in attributes:
            _cut_value(each)
    for event in span.events:
        event.name = event.name[:MAX_NAME]


def _cut_value(attribute: KeyValue) -> None:
    attribute.key = attribute.key[:MAX_NAME]
    value = attribute.value
    if value.ByteSize() <= MAX_VALUE_BYTES:
        return
    match value.WhichOneof("value"):
        case "string_value":
            value.string_value = _shortened(value.string_value)
        case "bytes_value":
            value.bytes_value = value.bytes_value[:MAX_VALUE_BYTES]
        case _:
            value.string_value = CUT.strip()


def _shortened(text: str) -> str:
    return text.encode()[: MAX_VALUE_BYTES - len(CUT)].decode(errors="ignore") + CUT


def _short(attribute: KeyValue) -> KeyValue:
    return KeyValue(key=attribute.key, value=AnyValue(string_value=attribute.value.string_value[:MAX_NAME]))


def _leave_out(span: Span, names: frozenset[str]) -> None:
    found = [number for number, each in enumerate(span.attributes) if each.key in names]
    for number in reversed(found):
        del span.attributes[number]


@lru_cache(maxsize=512)
def _bound(given: bytes, reporter: Reporter, redaction: Redaction) -> Resource:
    """The resource `given`, cleaned, with who sent it. Whoever gets it must not change it."""
    resource = Resource.FromString(given)
    redaction.clean_attributes(resource.attributes)
    claimed = {_SERVICE, _INSTANCE, REPORTER} if reporter.service else {REPORTER}
    kept = [each for each in resource.attributes if each.key not in claimed][:MAX_ATTRIBUTES]
    bound = {_SERVICE: reporter.service, _INSTANCE: reporter.instance} if reporter.service else {}
    own = [key_value(*each) for each in {**bound, REPORTER: reporter.who}.items()]
    return Resource(attributes=[*own, *kept])


def _piece(resource: Resource, scope: ScopeSpans, spans: list[Span]) -> Piece:
    group = ResourceSpans(resource=resource)
    group.scope_spans.add(scope=scope.scope, spans=spans)
    return Piece(group, TracesData(resource_spans=[group]).SerializeToString(), len(spans))


def pieces_of(data: bytes) -> Iterator[ResourceSpans]:
    """The pieces that another replica passed on. Raises DecodeError."""
    yield from TracesData.FromString(data).resource_spans
