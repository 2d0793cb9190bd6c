"""Spans that wait to be passed on: bounded, and put together to messages of a size."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import NamedTuple

from weft.controlplane.telemetry.intake import Piece


class Batch(NamedTuple):
    """Spans to be passed on together."""

    data: bytes
    """TracesData, which is an ExportTraceServiceRequest too."""
    spans: int


class SpanQueue:
    """What waits, in the order in which it came."""

    def __init__(self, *, most: int, batch: int) -> None:
        """At most `most` bytes wait; `batch` are passed on at once, but for a piece that is larger alone."""
        self._most = most
        self._batch = batch
        self._waiting: deque[Piece] = deque()
        self._size = 0
        self._news = asyncio.Event()

    def put(self, piece: Piece) -> bool:
        """Have `piece` wait; False: there is no room."""
        if self._size + len(piece.data) > self._most:
            return False
        self._waiting.append(piece)
        self._size += len(piece.data)
        self._news.set()
        return True

    async def next(self, gather: float) -> Batch:
        """What is to be passed on next: as much as comes within `gather` seconds, or as one batch may be."""
        while not self._waiting:
            self._news.clear()
            await self._news.wait()
        if self._size < self._batch:
            await asyncio.sleep(gather)
        parts: list[bytes] = []
        size = spans = 0
        while self._waiting and (not parts or size + len(self._waiting[0].data) <= self._batch):
            piece = self._waiting.popleft()
            self._size -= len(piece.data)
            size += len(piece.data)
            spans += piece.count
            parts.append(piece.data)
        return Batch(b"".join(parts), spans)
