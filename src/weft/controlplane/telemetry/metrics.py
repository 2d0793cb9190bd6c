"""Figures of spans, for Prometheus.

| metric | kind | what |
|---|---|---|
| `weft_telemetry_spans_received_total{result}` | counter | spans sent here: `taken`, or `rejected` |
| `weft_telemetry_spans_kept` | gauge | spans that this replica keeps |
| `weft_telemetry_traces_kept` | gauge | traces, likewise |
| `weft_telemetry_bytes_kept` | gauge | what they take up |
| `weft_telemetry_spans_dropped_total{reason}` | counter | `trace-too-long`, `not-shared`, `not-forwarded` |
| `weft_telemetry_spans_forwarded_total` | counter | spans that the collector took |
| `weft_telemetry_forwards_failed_total` | counter | attempts to forward that failed |
| `weft_telemetry_requests_refused_total` | counter | requests that were refused as a whole |
"""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

TOO_LONG = "trace-too-long"
NOT_SHARED = "not-shared"
NOT_FORWARDED = "not-forwarded"


class SpanMetrics:
    """The metrics of one replica, registered with `registry`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if `registry` has them already."""
        received = Counter(
            "weft_telemetry_spans_received_total",
            "Spans that were sent to this replica: taken, or rejected.",
            ["result"],
            registry=registry,
        )
        self._taken, self._rejected = received.labels("taken"), received.labels("rejected")
        dropped = Counter(
            "weft_telemetry_spans_dropped_total", "Spans that got lost here.", ["reason"], registry=registry
        )
        self._dropped = {each: dropped.labels(each) for each in (TOO_LONG, NOT_SHARED, NOT_FORWARDED)}
        self._spans = Gauge("weft_telemetry_spans_kept", "Spans that are kept.", registry=registry)
        self._traces = Gauge("weft_telemetry_traces_kept", "Traces that are kept.", registry=registry)
        self._bytes = Gauge("weft_telemetry_bytes_kept", "What they take up.", registry=registry)
        self._forwarded = Counter(
            "weft_telemetry_spans_forwarded_total", "Spans that the collector took.", registry=registry
        )
        self._failed = Counter(
            "weft_telemetry_forwards_failed_total", "Attempts to forward that failed.", registry=registry
        )
        self._refused = Counter(
            "weft_telemetry_requests_refused_total", "Requests refused as a whole.", registry=registry
        )
        self.received = 0
        """Spans that were taken, since this replica began."""
        self.dropped = 0
        """Spans that got lost, likewise."""
        self.sent = 0
        """Spans that were forwarded, likewise."""
        self.not_sent = 0
        """Spans that could not be, likewise."""

    def taken(self, spans: int, rejected: int) -> None:
        """A request was taken in."""
        self.received += spans
        self._taken.inc(spans)
        self._rejected.inc(rejected)

    def refused(self) -> None:
        """A request was refused."""
        self._refused.inc()

    def lost(self, reason: str, spans: int) -> None:
        """Spans got lost."""
        if reason == NOT_FORWARDED:
            self.not_sent += spans
        else:
            self.dropped += spans
        self._dropped[reason].inc(spans)

    def kept(self, spans: int, traces: int, size: int) -> None:
        """So much is kept now."""
        self._spans.set(spans)
        self._traces.set(traces)
        self._bytes.set(size)

    def forwarded(self, spans: int) -> None:
        """The collector took spans."""
        self.sent += spans
        self._forwarded.inc(spans)

    def forward_failed(self) -> None:
        """An attempt failed."""
        self._failed.inc()
