"""A real Redis for tests, on loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from tests.server_process import HOST, ServerProcess
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.ports import reserve_port

_PING = b"PING\r\n"


class RedisServer(ServerProcess):
    """A redis-server that can be killed and brought back at the same port with the same data.

    It is as a broker needs it: `appendfsync always`, since with `everysec` it confirms writes that its file
    does not have yet when the disk is slow, and then even the death of the process alone loses them.
    """

    program = "redis-server"

    def __init__(self, directory: Path, guard: Guard, *options: str) -> None:
        """`guard` ends it if the test runner is killed; `options` are further ones (`--maxmemory`, `4mb`)."""
        super().__init__(directory, guard)
        self._options = options
        with reserve_port(HOST) as reserved, reserve_port(HOST) as other:
            self.port = reserved.port
            self._tls_port = other.port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://{HOST}:{self.port}/0"

    @property
    def tls_url(self) -> str:
        """Where clients connect with TLS, if its options name a certificate."""
        return f"rediss://{HOST}:{self._tls_port}/0"

    async def _launch(self) -> Child:
        return await spawn(
            [_program(), *self._arguments()],
            guard=self._guard,
            environ=os.environ,
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            directory=self._directory,
        )

    def _arguments(self) -> Sequence[str]:
        return (
            *("--bind", HOST, "--port", str(self.port), "--dir", str(self._directory)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *("--logfile", str(self._log), *self._options),
            *(("--tls-port", str(self._tls_port)) if "--tls-cert-file" in self._options else ()),
        )

    @property
    def _log(self) -> Path:
        return self._directory / "redis.log"

    def _log_text(self) -> str:
        return self._log.read_text()

    async def _takes_clients(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection(HOST, self.port)
        except OSError:
            return False
        try:
            writer.write(_PING)
            answer = await reader.readline()
        except OSError:
            return False
        finally:
            writer.close()
        # Whoever has to say a password first hears so only when the data is read.
        return answer.startswith((b"+PONG", b"-NOAUTH"))


@asynccontextmanager
async def redis_server(directory: Path, *options: str) -> AsyncIterator[RedisServer]:
    """A running redis-server that keeps its data in `directory`; gone when the context is left.

    Skips the test where redis-server is not installed.
    """
    _program()
    async with Guard(grace=0.1) as guard:
        server = RedisServer(directory, guard, *options)
        try:
            await server.start()
            yield server
        finally:
            await server.kill()


def _program() -> str:
    found = shutil.which("redis-server")
    if found is None:
        pytest.skip("redis-server is not installed")
    return found
