"""Requests with httpx that are cancelled while they connect: no connection is left open by that.

httpcore and anyio close a connection that cannot be made, and forget one whose making is cancelled at the
wrong moment, or in the middle of its TLS handshake: it stays open until it is collected as garbage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

T = TypeVar("T")

PATIENCE: Final = 5.0
"""Seconds that a connection that is being made may still take when its request is cancelled."""

_STEPS = {"connection.connect_tcp", "connection.start_tls"}


class Connecting:
    """One request: give it the `extensions`, and have it done by `finish`."""

    def __init__(self, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        self._under_way = False
        self._settled = asyncio.Event()
        self._opened: list[Any] = []

    @property
    def extensions(self) -> dict[str, Any]:
        """For the request."""
        return {"trace": self._trace}

    async def finish(
        self, work: Coroutine[Any, Any, T], discard: Callable[[T], Awaitable[None]] | None = None
    ) -> T:
        """Do `work`; when this is cancelled, `work` is as soon as it has connected.

        If it has ended by then, `discard` sees to its result, which nobody gets any more.
        """
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            try:
                async with asyncio.timeout(self._patience):
                    await self._connected(task)
            except TimeoutError:
                pass
            finally:
                task.cancel()
            await asyncio.wait([task])
            if not task.cancelled() and task.exception() is None and discard is not None:
                await discard(task.result())
            raise

    async def _connected(self, task: asyncio.Future[Any]) -> None:
        while self._under_way and not task.done():
            await self._settled.wait()

    async def _trace(self, event: str, info: dict[str, Any]) -> None:
        step, _, how = event.rpartition(".")
        if step not in _STEPS:
            return
        self._under_way = how == "started"
        if self._under_way:
            self._settled.clear()
        else:
            self._settled.set()
        if event == "connection.connect_tcp.complete":
            self._opened.append(info["return_value"])
        elif event == "connection.start_tls.failed" and self._opened:
            await self._opened.pop().aclose()
