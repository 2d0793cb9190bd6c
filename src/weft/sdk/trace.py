"""W3C trace context, as far as it is needed to tell call trees apart: every tree is one trace."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from weft.model.telemetry_wire import TRACE_ALWAYS
from weft.model.telemetry_wire import TRACE_HEADER as WANTED_HEADER
from weft.sdk.wire import TRACE_HEADER
from weft.tracing.sampling import drawn, sampling_of
from weft.tracing.trace_context import TraceContext
from weft.tracing.tracer import Tracer


def new_traceparent() -> str:
    """The beginning of a new call tree, recorded as often as this process was told; if it was not, never."""
    return TraceContext.root(sampled=drawn(sampling_of(os.environ)) or False).traceparent


def trace_of(traceparent: str | None) -> str | None:
    """The id of the trace, 32 hexadecimal digits; None for what is no `traceparent`."""
    found = TraceContext.parse(traceparent)
    return found.trace_id if found is not None else None


def begun(headers: Mapping[str, str], tracer: Tracer, *, always: bool) -> dict[str, str]:
    """`headers` for a message: without a trace it begins one, if this process decides that, or `always`."""
    if always:
        return {**headers, TRACE_HEADER: _recorded(headers).traceparent}
    root = None if TRACE_HEADER in headers else tracer.root()
    return dict(headers) if root is None else {**headers, TRACE_HEADER: root}


def always_traced(headers: Mapping[str, str]) -> dict[str, str]:
    """`headers` for a call that is recorded whatever its trace so far: it begins one if they name none."""
    return {**headers, TRACE_HEADER: _recorded(headers).traceparent, WANTED_HEADER: TRACE_ALWAYS}


def _recorded(headers: Mapping[str, str]) -> TraceContext:
    known = TraceContext.parse(headers.get(TRACE_HEADER))
    return TraceContext.root(sampled=True) if known is None else replace(known, sampled=True)
