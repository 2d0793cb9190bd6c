"""Spans by OpenTelemetry's SDK, where the program uses OpenTelemetry itself.

The program's own TracerProvider is used as it is: then its exporter gets Weft's spans, and Weft exports
nothing. Where it has none it gets one whose spans go out as Weft's do, so that what the program begins by the
API is recorded, and a handler's span is what `trace.get_current_span()` gives.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

from weft.tracing.redaction import redacted
from weft.tracing.span import MAX_MESSAGE, Kind, Span, Value
from weft.tracing.trace_context import TraceContext

if TYPE_CHECKING:
    from opentelemetry.trace import Span as SdkSpan
    from opentelemetry.trace import TracerProvider

    from weft.tracing.outlet import Outlet
    from weft.tracing.span_processor import OutletProcessor

_API: Final = "opentelemetry.trace"

_installation = threading.Lock()
"""There is one provider in a process, and whoever is first sets it."""

_installed: list[tuple[TracerProvider, OutletProcessor]] = []
"""Weft's own provider, if there is one."""


def in_use() -> bool:
    """Whether the program has imported OpenTelemetry's API."""
    return _API in sys.modules


def current_provider() -> TracerProvider | None:
    """What makes the program's spans; None if it has set nothing that does."""
    from opentelemetry import trace  # noqa: PLC0415 -- only where it is there already

    provider = trace.get_tracer_provider()
    return None if isinstance(provider, trace.ProxyTracerProvider) else provider


_permitted: list[bool] = []
"""Whether this process is an agent's, and nobody else's."""


def may_install() -> bool:
    """Whether the program may get a provider of Weft's."""
    return bool(_permitted)


def permit() -> None:
    """Say that this process is an agent's: what is the process's may be set for it."""
    _permitted[:] = [True]


def is_own(provider: TracerProvider) -> bool:
    """Whether it is Weft's, and not the program's."""
    return any(each is provider for each, _ in _installed)


def adopt(outlet: Outlet) -> None:
    """Have spans of Weft's own provider go out by `outlet`, if that by which they went is closed."""
    for _, processor in _installed:
        if processor.outlet.closed:
            processor.outlet = outlet


class OpenTelemetrySpan:
    """One of the SDK's spans."""

    __slots__ = ("_span", "traceparent")

    def __init__(self, span: SdkSpan, traceparent: str) -> None:
        self._span = span
        self.traceparent = traceparent
        """The header for what is done below it."""

    def set(self, name: str, value: Value) -> None:
        """Give it an attribute."""
        self._span.set_attribute(name, value)

    def fail(self, kind: str, message: str = "") -> None:
        """Say that what it is about failed."""
        from opentelemetry.trace import Status, StatusCode  # noqa: PLC0415

        self._span.set_attribute("error.type", kind)
        self._span.set_status(Status(StatusCode.ERROR, redacted(message[:MAX_MESSAGE]) or None))

    def end(self) -> None:
        """It is over."""
        if self._span.is_recording():
            self._span.end()

    def current(self) -> AbstractContextManager[object]:
        """Have it be the current one for a block. What is raised there is told by `fail` alone."""
        from opentelemetry.trace import use_span  # noqa: PLC0415

        return use_span(self._span, record_exception=False, set_status_on_exception=False)


def begun(
    provider: TracerProvider,
    name: str,
    kind: Kind,
    parent: TraceContext,
    attributes: Mapping[str, Value],
    tracestate: str = "",
) -> Span | None:
    """A span of `provider`'s below `parent`; None if it records none."""
    from opentelemetry import context, trace  # noqa: PLC0415

    above = trace.SpanContext(
        int(parent.trace_id, 16),
        int(parent.span_id, 16),
        is_remote=True,
        trace_flags=trace.TraceFlags(trace.TraceFlags.SAMPLED),
        trace_state=trace.TraceState.from_header([tracestate]) if tracestate else None,
    )
    span = provider.get_tracer("weft").start_span(
        name,
        context=trace.set_span_in_context(trace.NonRecordingSpan(above), context.get_current()),
        kind=trace.SpanKind[kind.name],
        attributes=dict(attributes),
    )
    own = span.get_span_context()
    if not span.is_recording() or not own.is_valid:
        return None
    below = TraceContext(f"{own.trace_id:032x}", f"{own.span_id:016x}", own.trace_flags.sampled)
    return OpenTelemetrySpan(span, below.traceparent)


class Installation:
    """Brings the program a provider of Weft's, once, if it has none by the time that it is needed."""

    def __init__(self, outlet: Outlet, resource: Mapping[str, Value], sampling: float | None) -> None:
        self._outlet = outlet
        self._resource = resource
        self._sampling = sampling
        self._installing: asyncio.Future[None] | None = None

    def begin(self) -> None:
        """In a thread, since loading the SDK takes a while; what begins meanwhile is recorded without."""
        if self._installing is None:
            self._installing = asyncio.get_running_loop().run_in_executor(None, self.install)

    def install(self) -> None:
        """Now."""
        from opentelemetry import trace  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased  # noqa: PLC0415

        from weft.tracing.span_processor import OutletProcessor  # noqa: PLC0415 -- needs the SDK

        roots = TraceIdRatioBased((self._sampling or 0.0) / 100)
        with _installation:
            if current_provider() is not None:
                return
            provider = TracerProvider(
                ParentBased(roots), Resource(dict(self._resource)), shutdown_on_exit=False
            )
            processor = OutletProcessor(self._outlet)
            provider.add_span_processor(processor)
            _installed.append((provider, processor))
            trace.set_tracer_provider(provider)
