"""A server's process that tests start, kill, freeze and bring back."""

from __future__ import annotations

import asyncio
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from tests.freezing import freeze
from weft.aio.children import Child
from weft.aio.guard import Guard
from weft.aio.poll import until

HOST = "127.0.0.1"
"""Where all of them listen."""


class ServerProcess(ABC):
    """A server that can be killed and brought back at the same ports with the same data."""

    program: ClassVar[str]
    """What is started, in what is said of it."""
    start_limit: ClassVar[float] = 60.0
    """Seconds until it takes clients."""

    def __init__(self, directory: Path, guard: Guard) -> None:
        """It keeps all it has in `directory`; `guard` ends it if the test runner is killed."""
        self._directory = directory
        self._guard = guard
        self._process: Child | None = None

    async def start(self) -> None:
        """Start it and wait until it takes clients. Raises AssertionError, with its log, if it does not."""
        self._process = await self._launch()
        try:
            async with asyncio.timeout(self.start_limit):
                await until(self._is_ready)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"{self.program} did not start:\n{self._log_text()}") from None

    async def kill(self) -> None:
        """SIGKILL it and wait for its end. Does nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            if process.running:
                process.send(signal.SIGKILL)
            await process.wait()

    async def restart(self) -> None:
        """Kill it if it runs, and start it again: same ports, same data."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP it: connections stay open, nobody answers."""
        assert self._process is not None
        freeze(self._process.pid)

    def thaw(self) -> None:
        """SIGCONT it."""
        self._send(signal.SIGCONT)

    @abstractmethod
    async def _launch(self) -> Child:
        """Begin the process."""

    @abstractmethod
    async def _takes_clients(self) -> bool:
        """Whether it answers as a client needs it."""

    @abstractmethod
    def _log_text(self) -> str:
        """What it said."""

    def _send(self, number: int) -> None:
        assert self._process is not None
        self._process.send(number)

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.running, f"{self.program} ended:\n{self._log_text()}"
        return await self._takes_clients()
