"""Spans as Envoys and programs send them, for tests of telemetry."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

ENVOYS_OUTBOUND = {
    "node_id": "planner-1",
    "guid:x-request-id": "0f8fad5b-d9cb-469f-a165-70867728950e",
    "guid:x-client-trace-id": "1",
    "http.url": "/rpc",
    "http.method": "POST",
    "http.protocol": "HTTP/1.1",
    "peer.address": "127.0.0.1",
    "request_size": "120",
    "response_size": "220",
    "component": "proxy",
    "upstream_cluster": "type/summarizer",
    "http.status_code": "200",
    "response_flags": "-",
    "weft.listener": "outbound",
    "weft.destination": "summarizer",
    "weft.cluster": "type/summarizer",
    "weft.route": "default",
    "weft.version": "1",
    "weft.instance": "summarizer-1",
    "weft.attempts": "1",
    "weft.authority": "summarizer.mesh:80",
    "weft.context": "c-1",
}
"""The tags of a call, as Envoy has them."""


def any_value(value: Any) -> AnyValue:
    """`value` as OTLP has it."""
    match value:
        case list():
            return AnyValue(array_value=ArrayValue(values=[any_value(each) for each in value]))
        case dict():
            return AnyValue(kvlist_value=KeyValueList(values=attributes(value)))
    made = AnyValue()
    kinds = {bool: "bool_value", str: "string_value", int: "int_value", float: "double_value"}
    setattr(made, kinds.get(type(value), "bytes_value"), value)
    return made


def attributes(given: Mapping[str, Any]) -> list[KeyValue]:
    """Attributes as OTLP has them."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in given.items()]


def span(
    name: str = "work",
    *,
    trace: bytes | None = None,
    parent: bytes = b"",
    at: float | None = None,
    lasts: float = 0.01,
    failed: bool = False,
    given: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Span:
    """A span; `at` in seconds since 1970, `lasts` in seconds."""
    start = int((time.time() if at is None else at) * 1e9)
    made = Span(
        name=name,
        trace_id=os.urandom(16) if trace is None else trace,
        span_id=os.urandom(8),
        parent_span_id=parent,
        start_time_unix_nano=start,
        end_time_unix_nano=start + int(lasts * 1e9),
        attributes=attributes(given or {}),
    )
    if failed:
        made.status.code = Status.STATUS_CODE_ERROR
    made.MergeFrom(Span(**fields))
    return made


def group(*spans: Span, service: str = "planner", **resource: str) -> ResourceSpans:
    """Spans of one resource."""
    told = {"service.name": service, **{key.replace("_", "."): value for key, value in resource.items()}}
    return ResourceSpans(
        resource=Resource(attributes=attributes(told)), scope_spans=[ScopeSpans(spans=list(spans))]
    )


def request(*spans: Span, service: str = "planner") -> ExportTraceServiceRequest:
    """A request with spans of one resource."""
    return ExportTraceServiceRequest(resource_spans=[group(*spans, service=service)])
