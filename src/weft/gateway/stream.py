"""Server-Sent Events (WHATWG HTML, section 9.2): how callers hear of a task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable

from fastapi.responses import StreamingResponse

from weft.aio.closing import close_behind
from weft.gateway.draining import Draining

HEARTBEAT_INTERVAL = 15.0
"""Seconds of silence after which a comment is sent, so that dead connections are noticed."""

HEARTBEAT = b": still here\n\n"
DRAINED = b": this gateway stops; ask again with Last-Event-ID\n\n"
BROKEN_OFF = b": the mesh cannot be reached; ask again with Last-Event-ID\n\n"


def event(name: str, cursor: str, data: bytes) -> bytes:
    """One event, whose `data` is JSON on one line."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name.encode(), cursor.encode(), data)


def event_stream(
    events: AsyncGenerator[bytes, None], *, admitted: Callable[[], bool], draining: Draining
) -> StreamingResponse:
    """A response that sends `events` as they come, with heartbeats between, to whom is still `admitted`."""
    return StreamingResponse(
        _sent(events, admitted, draining),
        media_type="text/event-stream",
        headers={"cache-control": "no-store", "x-accel-buffering": "no"},
    )


async def _sent(
    events: AsyncGenerator[bytes, None], admitted: Callable[[], bool], draining: Draining
) -> AsyncIterator[bytes]:
    upcoming: asyncio.Future[bytes] | None = None
    begun = asyncio.ensure_future(draining.wait())
    try:
        while True:
            upcoming = upcoming or asyncio.ensure_future(anext(events))
            done, _ = await asyncio.wait(
                (upcoming, begun), timeout=HEARTBEAT_INTERVAL, return_when=asyncio.FIRST_COMPLETED
            )
            if not admitted():
                return
            if begun in done:
                yield DRAINED
                return
            if upcoming in done:
                try:
                    yield upcoming.result()
                except StopAsyncIteration:
                    return
                upcoming = None
            else:
                yield HEARTBEAT
    finally:
        begun.cancel()
        await close_behind(events, upcoming)
