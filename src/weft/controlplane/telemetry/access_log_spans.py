"""Spans made of access logs: of calls that failed though nobody traced them, and of attempts that failed.

`translate.trace_logs` decides which entries come, and with which tags.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, Final

from envoy.service.accesslog.v3.als_pb2 import StreamAccessLogsMessage
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span

from weft.controlplane.llm.peers import Peers
from weft.controlplane.telemetry.envoy_spans import Tags, attempt, describe, described, key_value
from weft.controlplane.telemetry.intake import Intake
from weft.controlplane.telemetry.reporter import Reporter
from weft.controlplane.telemetry.trace_summary import ACCESS_LOG, SOURCE
from weft.controlplane.xds.connection import Context
from weft.errors import TooMany
from weft.model.telemetry_wire import ERROR_LOG

_TRACEPARENT: Final = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}")
_TRACE_ID: Final = re.compile(r"[0-9a-f]{32}")
_SPAN_ID: Final = re.compile(r"[0-9a-f]{16}")


class SpanLogs:
    """Reads both logs."""

    def __init__(self, intake: Intake, peers: Peers) -> None:
        self._intake = intake
        self._peers = peers

    async def read(
        self, name: str, messages: AsyncIterator[StreamAccessLogsMessage], context: Context
    ) -> None:
        """Make spans of what one Envoy tells, until it ends. Raises Denied, Unauthenticated."""
        make = failed_call if name == ERROR_LOG else failed_attempt
        async for message in messages:
            reporter = Reporter.of_envoy(self._peers.peer(context))
            spans = list(_spans(message.http_logs.log_entry, make, reporter))
            group = ResourceSpans(scope_spans=[ScopeSpans(spans=spans)])
            try:
                await self._intake.take([group], message.ByteSize(), reporter)
            except TooMany:
                # There is no answer by which Envoy would come again with them.
                continue


def failed_call(entry: Any, reporter: Reporter) -> Span | None:
    """The span of a call that failed, which an entry of `weft-errors` is of; None if it is none."""
    properties = entry.common_properties
    tags: Tags = {**properties.custom_tags, "error": "true"}
    trace_id, span_id = tags.get("trace_id", ""), tags.get("span_id", "")
    if not _TRACE_ID.fullmatch(trace_id) or not _SPAN_ID.fullmatch(span_id):
        return None
    span = _span(properties, trace_id, bytes.fromhex(span_id))
    received = _TRACEPARENT.fullmatch(tags.get("parent", ""))
    if received is not None and received[1] == trace_id:
        span.parent_span_id = bytes.fromhex(received[2])
    describe(span, described(tags, reporter.service))
    return _marked(span)


def failed_attempt(entry: Any, reporter: Reporter) -> Span | None:  # noqa: ARG001 -- as failed_call
    """The span of an attempt that failed, which an entry of `weft-attempts` is of; None if it is none."""
    properties = entry.common_properties
    tags: Tags = properties.custom_tags
    call = _TRACEPARENT.fullmatch(tags.get("traceparent", ""))
    if call is None:
        return None
    # Envoy has no span for it, so no id. The same entry gets the same one.
    told = f"{call[0]} {tags.get('weft.attempt', '')} {properties.start_time.ToNanoseconds()}"
    span = _span(properties, call[1], hashlib.sha256(told.encode()).digest()[:8])
    span.parent_span_id = bytes.fromhex(call[2])
    describe(span, attempt(tags))
    return _marked(span)


def _spans(
    entries: Iterable[Any], make: Callable[[Any, Reporter], Span | None], reporter: Reporter
) -> Iterable[Span]:
    return (span for each in entries if (span := make(each, reporter)) is not None)


def _span(properties: Any, trace_id: str, span_id: bytes) -> Span:
    start = properties.start_time.ToNanoseconds()
    lasted = properties.duration.ToNanoseconds() or properties.time_to_last_downstream_tx_byte.ToNanoseconds()
    return Span(
        trace_id=bytes.fromhex(trace_id),
        span_id=span_id,
        start_time_unix_nano=max(start, 0),
        end_time_unix_nano=max(start + lasted, 0),
    )


def _marked(span: Span) -> Span:
    span.attributes.append(key_value(SOURCE, ACCESS_LOG))
    return span
