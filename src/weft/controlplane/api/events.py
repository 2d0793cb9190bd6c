"""Server-Sent Events (WHATWG HTML, section 9.2): how the API tells of changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fastapi.responses import StreamingResponse

from weft.aio.closing import close_behind

HEARTBEAT_INTERVAL = 15.0
"""Seconds of silence after which a comment is sent, so that dead connections are noticed."""


def event(name: str, data: str, cursor: str = "") -> bytes:
    """One event, whose `data` is JSON on one line. After its `cursor` a later request can go on."""
    identity = f"id: {cursor}\n" if cursor else ""
    return f"event: {name}\n{identity}data: {data}\n\n".encode()


def event_stream(events: AsyncGenerator[bytes, None], admitted: Callable[[], bool]) -> StreamingResponse:
    """A response that sends `events` as they come, with heartbeats between, to whom is still `admitted`."""
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(
        _with_heartbeats(events, admitted), media_type="text/event-stream", headers=headers
    )


async def _with_heartbeats(
    events: AsyncGenerator[bytes, None], admitted: Callable[[], bool]
) -> AsyncIterator[bytes]:
    upcoming: asyncio.Future[bytes] | None = None
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait([upcoming], timeout=HEARTBEAT_INTERVAL)
            if not admitted():
                return
            if not done:
                yield b": still here\n\n"
                continue
            try:
                yield upcoming.result()
            except StopAsyncIteration:
                return
            upcoming = None
    finally:
        await close_behind(events, upcoming)
