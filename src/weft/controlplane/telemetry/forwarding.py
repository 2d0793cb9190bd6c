"""Spans that were taken in here, sent on to a collector: each once, by the replica that took it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from weft.aio.backoff import backoff
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.telemetry.intake import Piece
from weft.controlplane.telemetry.metrics import NOT_FORWARDED, SpanMetrics
from weft.controlplane.telemetry.otlp_sender import (
    NotSent,
    Sender,
    Signal,
    open_sender,
    parse_endpoint,
    read_headers,
)
from weft.controlplane.telemetry.span_queue import Batch, SpanQueue
from weft.errors import InvalidRequest

QUEUE_BYTES: Final = 32 * 1024 * 1024
"""Of spans that wait to be sent on; what comes beyond is not."""

BATCH_BYTES: Final = 1024 * 1024
"""Of what is sent at once."""

GATHER: Final = 1.0
"""Seconds for which spans are gathered to a batch."""

GIVE_UP: Final = 300.0
"""Seconds after which a batch that the collector does not take is given up."""

_LONGEST_PAUSE: Final = 30.0  # seconds
_LONGEST_WISH: Final = 300.0  # seconds; what a collector may ask for with Retry-After
_REMINDER: Final = 60.0  # seconds between two complaints

logger = logging.getLogger(__name__)


class Collector:
    """The place where spans and metrics are sent on to."""

    def __init__(self, sender: Sender, endpoint: str, metrics: SpanMetrics) -> None:
        self.endpoint = endpoint
        """As it is shown."""
        self._sender = sender
        self._metrics = metrics
        self._quiet_until = 0.0

    @classmethod
    @asynccontextmanager
    async def open(
        cls, settings: ControlPlaneSettings, metrics: SpanMetrics
    ) -> AsyncIterator[Collector | None]:
        """Within the context, the collector of `settings`; None if there is none. Raises InvalidRequest."""
        if not settings.otlp_endpoint:
            yield None
            return
        endpoint = parse_endpoint(settings.otlp_endpoint)
        file = settings.otlp_headers_file
        read_headers(file)
        sender = open_sender(endpoint, lambda: read_headers(file), settings.otlp_roots_file)
        try:
            yield cls(sender, endpoint.text, metrics)
        finally:
            await sender.close()

    async def deliver(self, signal: Signal, data: bytes, *, give_up: float = GIVE_UP) -> bytes | None:
        """Send `data`, again and again where that may help, for `give_up` seconds; None: it was not taken."""
        loop = asyncio.get_running_loop()
        until = loop.time() + give_up
        for pause in backoff(first=1.0, longest=_LONGEST_PAUSE):
            try:
                return await self._sender.send(signal, data)
            except NotSent as error:
                self._failed(error.detail)
                if not error.again:
                    return None
                wait = pause if error.after is None else min(error.after, _LONGEST_WISH)
            except InvalidRequest as error:
                # The file with the headers, which somebody may be writing just now.
                self._failed(error.detail)
                wait = pause
            if loop.time() + wait > until:
                return None
            await asyncio.sleep(wait)
        return None

    def _failed(self, detail: str) -> None:
        self._metrics.forward_failed()
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _REMINDER
            logger.warning("the collector of telemetry does not take it: %s", detail)


class Forwarding:
    """Sends spans on."""

    def __init__(self, collector: Collector, metrics: SpanMetrics) -> None:
        self._collector = collector
        self._metrics = metrics
        self._queue = SpanQueue(most=QUEUE_BYTES, batch=BATCH_BYTES)

    def put(self, piece: Piece) -> None:
        """Send `piece` on, soon; it is lost where too much waits."""
        if not self._queue.put(piece):
            self._metrics.lost(NOT_FORWARDED, piece.count)

    async def run(self) -> None:
        """Send, for ever."""
        while True:
            batch = await self._queue.next(GATHER)
            answer = await self._collector.deliver(Signal.TRACES, batch.data)
            if answer is None:
                self._metrics.lost(NOT_FORWARDED, batch.spans)
            else:
                self._count(batch, answer)

    def _count(self, batch: Batch, answer: bytes) -> None:
        try:
            told = ExportTraceServiceResponse.FromString(answer).partial_success
        except DecodeError:
            told = ExportTraceServiceResponse().partial_success
        rejected = min(max(told.rejected_spans, 0), batch.spans)
        self._metrics.forwarded(batch.spans - rejected)
        if rejected:
            self._metrics.lost(NOT_FORWARDED, rejected)
            logger.debug("the collector left out spans: %s", told.error_message[:200])
