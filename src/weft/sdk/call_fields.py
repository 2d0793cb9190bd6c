"""What log records say of the call during which they are made."""

from __future__ import annotations

from collections.abc import Mapping

from weft.sdk.inheritance import inheritance
from weft.sdk.wire import CONTEXT_HEADER, TRACE_HEADER
from weft.tracing.trace_context import TraceContext


def call_fields() -> Mapping[str, str]:
    """Trace, span and conversation of the call being handled; empty outside a handler."""
    here = inheritance()
    if here is None:
        return {}
    found = {"context": here.headers.get(CONTEXT_HEADER, "")}
    trace = TraceContext.parse(here.headers.get(TRACE_HEADER))
    if trace is not None:
        found |= {"trace_id": trace.trace_id, "span_id": trace.span_id}
    return found
