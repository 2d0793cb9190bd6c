"""One drain of a sidecar, whoever asks for it and however often."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from weft.aio.cancellation import end
from weft.errors import NotFound
from weft.sidecar.local_server import LocalAnswer, LocalRequest, LocalServer

DRAIN_PATH: Final = "/drain"
"""A POST there, on the drain socket, begins the drain, and is answered when that is over."""


class Departure:
    """The drain: it is begun once, and can be waited for by many."""

    def __init__(self, drain: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """`drain` does it."""
        self._drain = drain
        self._begun = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def begun(self) -> bool:
        """Whether it has begun, or is over."""
        return self._begun.is_set()

    async def over(self) -> None:
        """Begin the drain if it has not begun, and wait for its end."""
        if self._task is None:
            self._task = asyncio.create_task(self._drain(), name="drain")
            self._begun.set()
        # Whoever waits may give up waiting; the others go on.
        await asyncio.wait({self._task})
        if not self._task.cancelled():
            self._task.result()

    async def awaited(self, patience: float) -> bool:
        """Wait for its end; False if it has not even begun within `patience` seconds."""
        try:
            async with asyncio.timeout(patience):
                await self._begun.wait()
        except TimeoutError:
            return False
        await self.over()
        return True

    async def give_up(self) -> None:
        """End it, if it has begun."""
        if self._task is not None:
            await end([self._task])


class DrainServer:
    """Takes the wish to drain at a Unix socket: from whoever may enter its directory."""

    def __init__(self, departure: Departure) -> None:
        self._departure = departure
        self._socket: Path | None = None
        self._server = LocalServer("drain", self._answer, max_body=0)

    async def listen(self, socket: Path) -> None:
        """Serve at `socket`; one that was left behind there is replaced. Raises OSError."""
        await self._server.listen_at(socket)
        self._socket = socket

    async def aclose(self) -> None:
        """Serve no more, and remove the socket."""
        await self._server.aclose()
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    async def _answer(self, request: LocalRequest) -> LocalAnswer:
        if (request.method, request.path) != ("POST", DRAIN_PATH):
            raise NotFound(f"there is POST {DRAIN_PATH} here")
        await self._departure.over()
        return LocalAnswer()
