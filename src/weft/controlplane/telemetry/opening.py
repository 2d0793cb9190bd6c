"""What is observed of the mesh, opened together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import grpc
from prometheus_client import CollectorRegistry

from weft.controlplane.access_logs import LogReader
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.telemetry.forwarding import Collector
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.metrics_push import MetricsPush
from weft.controlplane.telemetry.spans import Spans
from weft.controlplane.telemetry.traffic import TrafficView
from weft.resources.view import ResourceView
from weft.store.bucket import Store


@dataclass(frozen=True, slots=True)
class Telemetry:
    """What a replica knows of what happens in the mesh. Open it with `open_telemetry`; have `run` run."""

    spans: Spans
    traffic: TrafficView
    push: MetricsPush | None = None
    """None: metrics are not sent on."""

    @property
    def services(self) -> Sequence[grpc.GenericRpcHandler[bytes, bytes]]:
        """What the gRPC server that sidecars know is to serve, too."""
        return self.spans.services

    @property
    def logs(self) -> Mapping[str, LogReader]:
        """The access logs of Envoys that it reads, by name."""
        return self.spans.logs

    async def run(self, leads: Callable[[], bool] = lambda: True) -> None:
        """Do all that is to be done in the background, for ever.

        `leads` says whether this replica is the one that does what only one is to do.
        """
        work: dict[str, Awaitable[None]] = {
            "spans": self.spans.run(),
            "traffic": self.traffic.run(),
        }
        if self.push is not None:
            work["metrics"] = self.push.run(leads)
        async with asyncio.TaskGroup() as tasks:
            for name, each in work.items():
                tasks.create_task(_run(each), name=f"telemetry: {name}")


@asynccontextmanager
async def open_telemetry(
    settings: ControlPlaneSettings,
    store: Store,
    declared: ResourceView,
    metrics: CollectorRegistry,
    *,
    revoked: Callable[[str], bool],
) -> AsyncIterator[Telemetry]:
    """Within the context, what this replica observes; `revoked` is asked by SPIFFE ID.

    Raises Unavailable, InvalidRequest for bad settings.
    """
    traffic = TrafficView(store, metrics)
    figures = SpanMetrics(metrics)
    async with (
        Collector.open(settings, figures) as collector,
        Spans.open(settings, store, declared, figures, revoked=revoked, collector=collector) as spans,
    ):
        push = None
        if collector is not None and settings.otlp_metrics_interval:
            push = MetricsPush(
                collector,
                metrics,
                traffic,
                replica=settings.replica,
                interval=settings.otlp_metrics_interval,
            )
        yield Telemetry(spans, traffic, push)


async def _run(work: Awaitable[None]) -> None:
    await work
