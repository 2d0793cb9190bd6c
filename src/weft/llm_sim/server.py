"""The simulator, listening."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing

from weft.aio.signals import stop_signals
from weft.errors import Conflict
from weft.llm_sim.front import Front
from weft.llm_sim.http import Server
from weft.llm_sim.settings import SimSettings
from weft.llm_sim.simulator import Simulator

BACKLOG = 4096
"""Connections that may wait to be accepted: benchmarks open many at once."""


@asynccontextmanager
async def serving(simulator: Simulator, host: str, port: int, *, record: int = 0) -> AsyncIterator[int]:
    """Serve `simulator` for the block; yields its port. Raises Conflict if it is taken."""
    front = Front(simulator, record=record)
    server = Server(front.handle, front.refuse)
    loop = asyncio.get_running_loop()
    with closing(_bind(host, port)) as listener:
        actual: int = listener.getsockname()[1]
        listening = await loop.create_server(server.connection, sock=listener, backlog=BACKLOG)
        try:
            yield actual
        finally:
            listening.close()
            await server.close()
            await listening.wait_closed()


async def run(settings: SimSettings) -> None:
    """Serve until a signal asks to stop. Raises Conflict if the port is taken."""
    simulator = Simulator(settings.behaviour, seed=settings.seed, keys=settings.keys)
    stopped = asyncio.Event()
    with stop_signals(stopped.set):
        async with serving(simulator, settings.host, settings.port, record=settings.record) as port:
            print(
                f"weft llm-sim: simulated models at http://{settings.host}:{port}/v1, counted at /sim/stats",
                flush=True,
            )
            if settings.stop_with_stdin:
                await _follow_stdin(stopped)
            await stopped.wait()


async def _follow_stdin(stopped: asyncio.Event) -> None:
    """Have `stopped` set when standard input ends."""
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: _End(stopped), sys.stdin)


class _End(asyncio.Protocol):
    """Waits for the end of a pipe; what comes out of it is passed over."""

    def __init__(self, stopped: asyncio.Event) -> None:
        self._stopped = stopped

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 -- as asyncio calls it
        """Part of asyncio's protocol."""
        self._stopped.set()


def _bind(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"the simulator cannot listen at {host}:{port} ({error.strerror}): stop what uses it, or choose "
            "another port with --port"
        ) from error
    return listener
