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
from tests.server_process import HOST, ServerProcess
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.ports import reserve_port
from weft.local.nats import nats_config, nats_serves
from weft.local.nats_security import NatsSecurity


class NatsServer(ServerProcess):
    """A nats-server with JetStream on disk that can be killed and brought back at the same port."""

    program = "nats-server"
    start_limit = 60.0

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
        super().__init__(directory, guard)
        self.max_store = max_store
        self._security = security
        with reserve_port(HOST) as reserved:
            self.port = reserved.port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"{'tls' if self._security else 'nats'}://{HOST}:{self.port}"

    @property
    def data(self) -> Path:
        """Where it keeps its streams."""
        return self._directory / "jetstream"

    def reload(self) -> None:
        """SIGHUP it: it reads its configuration and certificates anew."""
        self._send(signal.SIGHUP)

    async def _launch(self) -> Child:
        return await spawn(
            [str(NATS_SERVER), *self._arguments(), "--log", str(self._log)],
            guard=self._guard,
            environ=os.environ,
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
        )

    def _arguments(self) -> Sequence[str]:
        if self._security is None:
            addresses = ("--addr", HOST, "--port", str(self.port))
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

    def _log_text(self) -> str:
        return self._log.read_text()

    async def _takes_clients(self) -> bool:
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
