"""Spans among the replicas of the control plane: what one has taken in, all keep."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Final

from google.protobuf.message import DecodeError

from weft.aio.reminder import Reminder
from weft.controlplane.telemetry.intake import Piece, pieces_of
from weft.controlplane.telemetry.limits import PIECE_BYTES
from weft.controlplane.telemetry.metrics import NOT_SHARED, SpanMetrics
from weft.controlplane.telemetry.span_queue import SpanQueue
from weft.controlplane.telemetry.trace_store import TraceStore
from weft.store.broadcast import Broadcast, BroadcastListener
from weft.store.bucket import Store

SPANS: Final = "spans"
"""The broadcast."""

_GATHER: Final = 0.1  # seconds
_MOST: Final = 8 * 1024 * 1024  # bytes that wait to be sent

logger = logging.getLogger(__name__)


class Sharing:
    """Tells other replicas, and keeps what they tell."""

    def __init__(self, store: Store, traces: TraceStore, metrics: SpanMetrics) -> None:
        self._broadcast: Broadcast = store.broadcast(SPANS)
        self._traces = traces
        self._metrics = metrics
        self._queue = SpanQueue(most=_MOST, batch=PIECE_BYTES)
        # What a replica has said itself it keeps already.
        self._own = secrets.token_hex(8)
        self._reminder = Reminder(0.0, first=0.0)

    def put(self, piece: Piece) -> None:
        """Tell of `piece` soon."""
        if not self._queue.put(piece):
            self._lost(piece.count)

    async def send(self) -> None:
        """Tell others, for ever."""
        while True:
            batch = await self._queue.next(_GATHER)
            if not await self._broadcast.send(self._own, batch.data):
                self._lost(batch.spans)

    async def hear(self, listener: BroadcastListener) -> None:
        """Keep what others tell, for ever."""
        while True:
            heard = await listener.next()
            if heard.key == self._own:
                continue
            try:
                for group in pieces_of(heard.data):
                    self._traces.add(group)
                    await asyncio.sleep(0)
            except DecodeError:
                logger.warning("another replica tells of spans in a form that is not understood here")

    def listening(self) -> Broadcast:
        """What `hear` is to be given a listener of."""
        return self._broadcast

    def _lost(self, spans: int) -> None:
        self._metrics.lost(NOT_SHARED, spans)
        if self._reminder.due(asyncio.get_running_loop().time()):
            logger.warning("spans are lost to other replicas: NATS does not take them, or not so many")
