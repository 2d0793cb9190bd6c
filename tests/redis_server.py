"""A real Redis for tests, on loopback."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port

_HOST = "127.0.0.1"
_START_LIMIT = 30.0
_PING = b"PING\r\n"


class RedisServer:
    """A redis-server that can be killed and brought back at the same port with the same data.

    It is as a broker needs it: `appendfsync always`, since with `everysec` it confirms writes that its file
    does not have yet when the disk is slow, and then even the death of the process alone loses them.
    """

    def __init__(self, directory: Path, guard: Guard, *options: str) -> None:
        """`guard` ends it if the test runner is killed; `options` are further ones (`--maxmemory`, `4mb`)."""
        self._directory = directory
        self._guard = guard
        self._options = options
        self._process: Child | None = None
        with reserve_port(_HOST) as reserved, reserve_port(_HOST) as other:
            self.port = reserved.port
            self._tls_port = other.port

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"redis://{_HOST}:{self.port}/0"

    @property
    def tls_url(self) -> str:
        """Where clients connect with TLS, if its options name a certificate."""
        return f"rediss://{_HOST}:{self._tls_port}/0"

    async def start(self) -> None:
        """Start it and wait until it takes clients. Raises AssertionError, with its log, if it does not."""
        self._process = await spawn(
            [_program(), *self._arguments()],
            guard=self._guard,
            environ=os.environ,
            stderr=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            directory=self._directory,
        )
        try:
            async with asyncio.timeout(_START_LIMIT):
                await until(self._is_ready)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"redis-server did not start:\n{self._log.read_text()}") from None

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

    def _arguments(self) -> Sequence[str]:
        return (
            *("--bind", _HOST, "--port", str(self.port), "--dir", str(self._directory)),
            *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
            *("--logfile", str(self._log), *self._options),
            *(("--tls-port", str(self._tls_port)) if "--tls-cert-file" in self._options else ()),
        )

    @property
    def _log(self) -> Path:
        return self._directory / "redis.log"

    async def _is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.running, f"redis-server ended:\n{self._log.read_text()}"
        try:
            reader, writer = await asyncio.open_connection(_HOST, self.port)
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
