"""Spans as OTLP has them: requests of `opentelemetry.proto.collector.trace.v1`.

Loaded when the first batch goes out, in a thread: the messages take 2 MB of memory, and OpenTelemetry's own
encoder, which only spans of its SDK need, more than that again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Status
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from weft.tracing.span import RecordedSpan, Value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

MAX_REQUEST_BYTES: Final = 1024 * 1024
"""Of one request, but for the last span in it."""

_SCOPE: Final = "weft"
# The lowest bits of `flags` are W3C's.
_SAMPLED: Final = 0x01


def requests_of(spans: Sequence[RecordedSpan | ReadableSpan], resource: Mapping[str, Value]) -> list[bytes]:
    """The requests that carry `spans`; those that Weft recorded itself are of `resource`."""
    own = [each for each in spans if isinstance(each, RecordedSpan)]
    others = [each for each in spans if not isinstance(each, RecordedSpan)]
    messages = [*_own(own, resource), *_of_the_sdk(others)]
    return [ExportTraceServiceRequest(resource_spans=[each]).SerializeToString() for each in messages]


def _own(spans: Iterable[RecordedSpan], resource: Mapping[str, Value]) -> Iterator[ResourceSpans]:
    about = Resource(attributes=_attributes(resource))
    scope = InstrumentationScope(name=_SCOPE, version=version("weft"))
    for piece in _pieces(_message(each) for each in spans):
        yield ResourceSpans(resource=about, scope_spans=[ScopeSpans(scope=scope, spans=piece)])


def _of_the_sdk(spans: Sequence[ReadableSpan]) -> Iterator[ResourceSpans]:
    if not spans:
        return
    from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans  # noqa: PLC0415

    for each in encode_spans(spans).resource_spans:
        for scoped in each.scope_spans:
            for piece in _pieces(iter(scoped.spans)):
                found = ScopeSpans(scope=scoped.scope, spans=piece, schema_url=scoped.schema_url)
                yield ResourceSpans(resource=each.resource, scope_spans=[found], schema_url=each.schema_url)


def _pieces(spans: Iterator[SpanMessage]) -> Iterator[list[SpanMessage]]:
    piece: list[SpanMessage] = []
    size = 0
    for each in spans:
        piece.append(each)
        size += each.ByteSize()
        if size >= MAX_REQUEST_BYTES:
            yield piece
            piece, size = [], 0
    if piece:
        yield piece


def _message(span: RecordedSpan) -> SpanMessage:
    failed = Status(code=Status.STATUS_CODE_ERROR, message=_text(span.message)) if span.failed else None
    return SpanMessage(
        trace_id=bytes.fromhex(span.context.trace_id),
        span_id=bytes.fromhex(span.context.span_id),
        parent_span_id=bytes.fromhex(span.parent),
        trace_state=_text(span.tracestate),
        flags=_SAMPLED,
        name=_text(span.name),
        kind=SpanMessage.SpanKind.ValueType(span.kind),
        start_time_unix_nano=span.started_ns,
        end_time_unix_nano=max(span.ended_ns, span.started_ns),
        attributes=_attributes(span.attributes),
        status=failed,
    )


def _attributes(values: Mapping[str, Value]) -> list[KeyValue]:
    return [KeyValue(key=_text(name), value=AnyValue(**_value(value))) for name, value in values.items()]


def _value(value: Value) -> dict[str, Any]:
    if isinstance(value, bool):
        return {"bool_value": value}
    if isinstance(value, int):
        return {"int_value": value} if -(2**63) <= value < 2**63 else {"string_value": str(value)}
    return {"double_value": value} if isinstance(value, float) else {"string_value": _text(value)}


def _text(text: str) -> str:
    """What can be written as UTF-8: half a surrogate pair cannot."""
    return text.encode(errors="replace").decode() if not text.isascii() else text
