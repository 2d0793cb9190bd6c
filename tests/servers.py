"""Real servers for tests, on loopback."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.binaries import NATS_SERVER
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.local.nats import nats_config, nats_serves
from weft.local.nats_security import NatsSecurity

_HOST = "127.0.0.1"
_START_LIMIT = 20.0


class NatsServer:
    """A nats-server with JetStream on disk that can be killed and brought back at the same port."""

    def __init__(
        self,
        directory: Path,
        guard: Guard,
        security: NatsSecurity | None = None,
        *,
        max_store: int | None = None,
    ) -> None:
        """`guard` ends it if the test runner is killed; with `security` it is as `weft up` has it.

        Without, it keeps `max_store` bytes at most, if given.
        """
        self.max_store = max_store
        self._directory = directory
        self._security = security
        self._guard = guard
        self._process: Child | None = None
        with reserve_port(_HOST) as reserved:
            self.port = reserved.port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'tls' if self._security else 'nats'}://{_HOST}:{self.port}"

    @property
    def data(self) -> Path:
        """Where it keeps its streams."""
        return self._directory / "jetstream"

    async def start(self) -> None:
        """Start it and wait until it takes clients. Raises AssertionError, with its log, if it does not."""
        self._process = await spawn(
            [str(NATS_SERVER), *self._arguments(), "--log", str(self._log)],
            guard=self._guard,
            environ=os.environ,
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_START_LIMIT):
                await until(self._is_ready)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"nats-server did not start:\n{self._log.read_text()}") from None

    async def kill(self) -> None:
        """SIGKILL it and wait for its end. Does nothing if it does not run."""
        process, self._process = self._process, None
        if process is not None:
            if process.running:
                process.send(signal.SIGKILL)
            await process.wait()

    async def restart(self) -> None:
        """Kill it if it runs, and start it again: same port, same data."""
        await self.kill()
        await self.start()

    def freeze(self) -> None:
        """SIGSTOP it: connections stay open, nobody answers."""
        assert self._process is not None
        self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT it."""
        assert self._process is not None
        self._process.send(signal.SIGCONT)

    def reload(self) -> None:
        """SIGHUP it: it reads its configuration and certificates anew."""
        assert self._process is not None
        self._process.send(signal.SIGHUP)

    def _arguments(self) -> Sequence[str]:
        if self._security is None:
            addresses = ("--addr", _HOST, "--port", str(self.port))
            if self.max_store is None:
                return (*addresses, "--jetstream", "--store_dir", str(self.data))
            limited = self._directory / "limited.conf"
            settings = {"store_dir": str(self.data), "max_file_store": self.max_store}
            limited.write_text(json.dumps({"jetstream": settings}))
            return (*addresses, "--config", str(limited))
        file = self._directory / "nats.conf"
        file.write_text(nats_config(self.port, self.data, self._security))
        return ("--config", str(file))

    @property
    def _log(self) -> Path:
        return self._directory / "nats.log"

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.running, f"nats-server ended:\n{self._log.read_text()}"
        return await nats_serves(self.port, self._security)


@asynccontextmanager
async def nats_server(
    directory: Path, security: NatsSecurity | None = None, *, max_store: int | None = None
) -> AsyncIterator[NatsServer]:
    """A running nats-server that keeps its data in `directory`; gone when the context is left."""
    async with Guard(grace=0.1) as guard:
        server = NatsServer(directory, guard, security, max_store=max_store)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()
