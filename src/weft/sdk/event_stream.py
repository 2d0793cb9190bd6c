"""The answering side of a stream: items as Server-Sent Events, heartbeats while there is nothing to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from pydantic_core import to_json
from starlette.types import Send

from weft.sdk.failure import failures_answered
from weft.sdk.problem import Problem, Rejection
from weft.sdk.sse import HEARTBEAT, encode_event
from weft.sdk.wire import EVENT_STREAM

HEARTBEAT_INTERVAL = 15.0
"""Seconds of silence after which a comment is sent."""

_HEADERS = [(b"content-type", EVENT_STREAM.encode()), (b"cache-control", b"no-store")]


class EventStream:
    """One answer: `data: <item>` for each item, then `event: end`, or `event: error` with the problem."""

    def __init__(self, send: Send, heartbeat_interval: float = HEARTBEAT_INTERVAL) -> None:
        """`send` is ASGI's; `heartbeat_interval` is in seconds."""
        self._send = send
        self._interval = heartbeat_interval
        self._silent = True

    async def serve(self, kind: str, items: AsyncGenerator[Any, None]) -> None:
        """Answer with `items`; their failure becomes the last event."""
        await self._send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
        try:
            async with self._heartbeats(), aclosing(items):
                with failures_answered(kind):
                    async for item in items:
                        await self._write(encode_event(to_json(item, by_alias=True)))
        except Rejection as rejection:
            await self.fail(rejection.problem)
        else:
            await self._write(encode_event(b"{}", "end"), last=True)

    async def fail(self, problem: Problem) -> None:
        """End the stream with `problem`."""
        await self._write(encode_event(problem.body(), "error"), last=True)

    async def _write(self, data: bytes, *, last: bool = False) -> None:
        self._silent = False
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    @asynccontextmanager
    async def _heartbeats(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self._beat(), name="heartbeats")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _beat(self) -> None:
        while True:
            self._silent = True
            await asyncio.sleep(self._interval)
            if self._silent:
                await self._write(HEARTBEAT)
