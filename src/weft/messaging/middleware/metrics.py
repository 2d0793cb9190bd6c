"""Counting and timing what is processed, for Prometheus.

| metric | labels | what |
|---|---|---|
| `weft_messages_processed_total` | `channel`, `outcome` | deliveries: `succeeded`, `failed`, `cancelled` |
| `weft_message_processing_seconds` | `channel` | histogram: how long each took |
| `weft_messages_in_flight` | `channel` | being processed now |
"""

from __future__ import annotations

import asyncio
import time

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from weft.messaging.broker import Delivery
from weft.messaging.processing import Handle, Middleware

_BUCKETS = (0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
"""Seconds: from what only looks something up to what thinks for a quarter of an hour."""


class MessageMetrics:
    """The metrics in a registry, one of each for all channels."""

    def __init__(self, registry: CollectorRegistry) -> None:
        """Raises ValueError if they are in that registry already."""
        self._processed = Counter(
            "weft_messages_processed",
            "Deliveries of messages that were processed, by outcome: succeeded, failed, cancelled",
            ["channel", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "weft_message_processing_seconds",
            "How long deliveries were worked on",
            ["channel"],
            buckets=_BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "weft_messages_in_flight", "Deliveries being worked on", ["channel"], registry=registry
        )

    def of(self, channel: str) -> ChannelMetrics:
        """Those of one channel: `queue/reports`, or a topic and the group, `topic/orders/summarizer`."""
        return ChannelMetrics(
            succeeded=self._processed.labels(channel, "succeeded"),
            failed=self._processed.labels(channel, "failed"),
            cancelled=self._processed.labels(channel, "cancelled"),
            seconds=self._seconds.labels(channel),
            in_flight=self._in_flight.labels(channel),
        )


class ChannelMetrics:
    """The metrics of one channel, looked up once."""

    __slots__ = ("cancelled", "failed", "in_flight", "seconds", "succeeded")

    def __init__(
        self, *, succeeded: Counter, failed: Counter, cancelled: Counter, seconds: Histogram, in_flight: Gauge
    ) -> None:
        self.succeeded = succeeded
        self.failed = failed
        self.cancelled = cancelled
        self.seconds = seconds
        self.in_flight = in_flight


def measured(metrics: ChannelMetrics) -> Middleware:
    """Count and time what is inside; see this module for the metrics."""

    def around(inner: Handle) -> Handle:
        async def handle(delivery: Delivery) -> None:
            begun = time.perf_counter()
            metrics.in_flight.inc()
            outcome = metrics.failed
            try:
                await inner(delivery)
                outcome = metrics.succeeded
            except asyncio.CancelledError:
                outcome = metrics.cancelled
                raise
            finally:
                metrics.in_flight.dec()
                metrics.seconds.observe(time.perf_counter() - begun)
                outcome.inc()

        return handle

    return around
