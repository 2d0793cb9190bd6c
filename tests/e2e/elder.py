"""An agent that knows nothing of Weft, but is instrumented by OpenTelemetry's own SDK and exporter."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

# Nothing is configured here: its environment says all.
provider = TracerProvider()
provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(), schedule_delay_millis=200))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("elder")


class Handler(BaseHTTPRequestHandler):
    """Answers everything."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Its health."""
        self.answer(b"well")

    def do_POST(self) -> None:
        """A question."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        context = propagate.extract({name.lower(): value for name, value in self.headers.items()})
        with tracer.start_as_current_span("think", context, kind=trace.SpanKind.SERVER) as span:
            span.set_attribute("depth", 42)
            self.answer(b"hm")

    def answer(self, body: bytes) -> None:
        """200."""
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
