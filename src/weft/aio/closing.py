"""Ending an async generator that is being read from elsewhere, so that it can clean up after itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

_under_way: set[asyncio.Task[None]] = set()
# The event loop knows its tasks by weak references only.


async def close_behind(generator: AsyncGenerator[Any, Any], upcoming: asyncio.Future[Any] | None) -> None:
    """Close `generator`, whose next item is awaited as `upcoming` if that is given.

    That goes on in a task of its own, whether or not who waits for it here is cancelled: in a cancelled scope
    of anyio, as that of a response whose client has gone, everything is, again and again.
    """
    closing = asyncio.create_task(_closed(generator, upcoming), name="close a stream")
    _under_way.add(closing)
    closing.add_done_callback(_under_way.discard)
    # Not `await closing`: its cancellation would go on to the task.
    await asyncio.wait({closing})
    closing.result()


async def _closed(generator: AsyncGenerator[Any, Any], upcoming: asyncio.Future[Any] | None) -> None:
    if upcoming is not None:
        upcoming.cancel()
        await asyncio.wait({upcoming})
        if not upcoming.cancelled():
            upcoming.exception()  # heard: asyncio need not log it
    await generator.aclose()
