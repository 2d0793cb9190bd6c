"""Spans of the mesh, as this replica takes them in, keeps them and tells of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Final

import grpc

from weft.controlplane.access_logs import LogReader
from weft.controlplane.llm.peers import Peers
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.telemetry.access_log_spans import SpanLogs
from weft.controlplane.telemetry.forwarding import Collector, Forwarding
from weft.controlplane.telemetry.intake import Intake, Piece
from weft.controlplane.telemetry.metrics import SpanMetrics
from weft.controlplane.telemetry.otlp_grpc import TraceService
from weft.controlplane.telemetry.otlp_http import OtlpHttp
from weft.controlplane.telemetry.redaction import Redaction
from weft.controlplane.telemetry.sharing import Sharing
from weft.controlplane.telemetry.trace_store import TraceStore
from weft.model.telemetry_wire import ATTEMPT_LOG, ERROR_LOG
from weft.resources.view import ResourceView
from weft.store.broadcast import BroadcastListener
from weft.store.bucket import Store

TRIM_INTERVAL: Final = 5.0
"""Seconds after which traces that are too old go, though nothing comes."""


class Spans:
    """All that a replica does with spans. Open it with `open`; have `run` run."""

    def __init__(
        self,
        settings: ControlPlaneSettings,
        store: Store,
        declared: ResourceView,
        metrics: SpanMetrics,
        revoked: Callable[[str], bool],
        collector: Collector | None,
    ) -> None:
        self.metrics = metrics
        """Figures."""
        self.traces = TraceStore(self.metrics, limit=settings.trace_memory, age=settings.trace_age)
        """What is kept."""
        self.intake = Intake(_Declared(declared).redaction, self._hand_on, self.metrics)
        """What takes in what others send."""
        self.http = OtlpHttp(self.intake, self.metrics)
        """The same, by OTLP/HTTP."""
        self.forwards_to = collector.endpoint if collector is not None else ""
        """Where spans are sent on; empty: nowhere."""
        self._forwarding = Forwarding(collector, metrics) if collector is not None else None
        self._peers = Peers(settings.trust_domain, revoked)
        self._sharing = Sharing(store, self.traces, self.metrics)
        self._listener: BroadcastListener | None = None

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        settings: ControlPlaneSettings,
        store: Store,
        declared: ResourceView,
        metrics: SpanMetrics,
        *,
        revoked: Callable[[str], bool],
        collector: Collector | None = None,
    ) -> AsyncIterator[Spans]:
        """Within the context, other replicas are heard. What is taken in goes on to `collector`, if any.

        Raises Unavailable.
        """
        spans = cls(settings, store, declared, metrics, revoked, collector)
        async with spans._sharing.listening().listen() as spans._listener:
            yield spans

    @property
    def services(self) -> Sequence[grpc.GenericRpcHandler[bytes, bytes]]:
        """What the gRPC server that sidecars know is to serve."""
        return [TraceService(self.intake, self._peers, self.metrics).handler()]

    @property
    def logs(self) -> Mapping[str, LogReader]:
        """The access logs that it reads, by name."""
        reader = SpanLogs(self.intake, self._peers)
        return {ERROR_LOG: reader, ATTEMPT_LOG: reader}

    async def run(self) -> None:
        """Share spans with other replicas, and forward them, for ever."""
        assert self._listener is not None  # noqa: S101 -- see `open`
        work: list[Awaitable[None]] = [
            self._sharing.send(),
            self._sharing.hear(self._listener),
            self._trim(),
        ]
        if self._forwarding is not None:
            work.append(self._forwarding.run())
        async with asyncio.TaskGroup() as tasks:
            for each in work:
                tasks.create_task(_run(each))

    def _hand_on(self, piece: Piece) -> None:
        self.traces.add(piece.spans)
        self._sharing.put(piece)
        if self._forwarding is not None:
            self._forwarding.put(piece)

    async def _trim(self) -> None:
        while True:
            await asyncio.sleep(TRIM_INTERVAL)
            self.traces.trim()


class _Declared:
    """The redaction that Telemetries declare, made anew when they change."""

    def __init__(self, declared: ResourceView) -> None:
        self._declared = declared
        self._seen = -1
        self._redaction = Redaction()

    def redaction(self) -> Redaction:
        if self._seen != self._declared.generation:
            self._seen = self._declared.generation
            self._redaction = Redaction.declared(self._declared.resources.values())
        return self._redaction


async def _run(work: Awaitable[None]) -> None:
    await work
