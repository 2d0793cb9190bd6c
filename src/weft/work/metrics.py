"""Figures of what a member does of its own accord, and the page on which a program shows its figures.

The figures are those of `weft.tasks.metrics`, for tasks, and `weft.messaging.middleware.metrics`, for events.
"""

from __future__ import annotations

from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from weft.messaging.middleware.metrics import MessageMetrics
from weft.tasks.metrics import SubmissionMetrics, WorkerMetrics

METRICS_PATH: Final = "/metrics"
"""Where a program shows its figures, to who reaches it without the mesh: its sidecar, above all."""

CONTENT_TYPE: Final = CONTENT_TYPE_LATEST
"""Of that page."""


class WorkMetrics:
    """The figures of one member, in one registry."""

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        """Without `registry` it is one of its own. Raises ValueError if `registry` has them already."""
        self.registry = CollectorRegistry() if registry is None else registry
        self.submissions = SubmissionMetrics(self.registry)
        self.workers = WorkerMetrics(self.registry)
        self.messages = MessageMetrics(self.registry)


def metrics_page(metrics: WorkMetrics | None) -> bytes:
    """The figures of a program: these, if it has any yet, and whatever it counts by itself (REGISTRY)."""
    page = CollectorRegistry()
    if metrics is not None:
        page.register(metrics.registry)
    page.register(REGISTRY)
    return bytes(generate_latest(page))  # type: ignore[no-untyped-call]
