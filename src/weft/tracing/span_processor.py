"""What hands spans of OpenTelemetry's SDK to Weft's outlet. Imported where the SDK is in use only."""

from __future__ import annotations

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from weft.tracing.outlet import Outlet


class OutletProcessor(SpanProcessor):
    """Puts each sampled span into an outlet, which batches them."""

    def __init__(self, outlet: Outlet) -> None:
        self.outlet = outlet
        """Where they go."""

    def on_end(self, span: ReadableSpan) -> None:
        """Take one that has ended."""
        if span.context is not None and span.context.trace_flags.sampled:
            self.outlet.put(span)
