"""A trace as the API shows it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from weft.controlplane.telemetry.trace_store import Trace, TraceStore
from weft.controlplane.telemetry.trace_summary import Origin
from weft.controlplane.telemetry.turns import Turn

MAX_BYTES: Final = 16 * 1024 * 1024
"""Of spans that are shown at once; what is beyond is left out."""

_NS: Final = 1e9

_KINDS: Final = {
    Span.SPAN_KIND_SERVER: "server",
    Span.SPAN_KIND_CLIENT: "client",
    Span.SPAN_KIND_PRODUCER: "producer",
    Span.SPAN_KIND_CONSUMER: "consumer",
}
_STATUSES: Final = {Status.STATUS_CODE_OK: "ok", Status.STATUS_CODE_ERROR: "error"}


async def waterfall(store: TraceStore, trace: Trace) -> dict[str, Any]:
    """`trace` with all its spans. Lets others have their turn in between."""
    shown: list[dict[str, Any]] = []
    size = 0
    cut = trace.cut
    turn = Turn()
    # Spans may come, and go, meanwhile: those that there are now are shown.
    for origin, data in store.spans(trace):
        size += len(data)
        if size > MAX_BYTES:
            cut = True
            break
        shown.append(_shown(origin, Span.FromString(data)))
        await turn.pause()
    shown.sort(key=lambda each: (each["start"], -each["duration"]))
    return {
        "id": trace.id.hex(),
        "start": trace.start / _NS,
        "duration": (trace.end - trace.start) / _NS,
        "spans": shown,
        "cut": cut,
    }


def _shown(origin: Origin, span: Span) -> dict[str, Any]:
    start, parent = span.start_time_unix_nano, span.parent_span_id
    return {
        "id": span.span_id.hex(),
        # A parent that the SDK's `trace=True` made up nobody has.
        "parent": "" if parent == span.trace_id[8:] else parent.hex(),
        "name": span.name,
        "kind": _KINDS.get(span.kind, "internal"),
        "service": origin.service,
        "instance": origin.instance,
        "version": origin.version,
        "start": start / _NS,
        "duration": (span.end_time_unix_nano - start) / _NS,
        "status": _STATUSES.get(span.status.code, "unset"),
        "message": span.status.message,
        "attributes": {**shown_attributes(span.attributes), "weft.reporter": origin.reporter},
        "events": [
            {
                "name": each.name,
                "at": each.time_unix_nano / _NS,
                "attributes": shown_attributes(each.attributes),
            }
            for each in span.events
        ],
    }


def shown_attributes(given: Iterable[KeyValue]) -> dict[str, Any]:
    """Attributes as JSON has them."""
    return {each.key: _value(each) for each in given}


def _value(attribute: KeyValue | AnyValue) -> Any:
    value = attribute.value if isinstance(attribute, KeyValue) else attribute
    match value.WhichOneof("value"):
        case None:
            return None
        case "kvlist_value":
            return shown_attributes(value.kvlist_value.values)
        case "array_value":
            return [_value(each) for each in value.array_value.values]
        case "bytes_value":
            return value.bytes_value.hex()
        case "double_value":
            number = value.double_value
            # JSON has no others.
            return number if math.isfinite(number) else str(number)
        case which:
            return getattr(value, which)
