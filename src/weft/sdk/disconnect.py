"""Work for a client that may go away before it is done."""

from __future__ import annotations

import asyncio
from typing import TypeVar

from starlette.types import Receive

from weft.errors import Interrupted

T = TypeVar("T")


class ClientGone(Exception):
    """Nobody waits for the answer any more."""


async def while_connected(receive: Receive, work: asyncio.Task[T]) -> T:
    """Return the result of `work`, which is cancelled when the client disconnects.

    The body of the request must have been read. Raises ClientGone; Interrupted if somebody else cancelled
    the work; and what the work raises.
    """
    gone = asyncio.create_task(_disconnected(receive), name="disconnect watch")
    try:
        await asyncio.wait((work, gone), return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            raise ClientGone
        if work.cancelled():
            raise Interrupted(
                "the agent stopped before the call was done: it may or may not have been processed"
            )
        return work.result()
    finally:
        gone.cancel()
        work.cancel()
        await asyncio.gather(work, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
