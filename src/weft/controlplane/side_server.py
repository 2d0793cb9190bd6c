"""A second HTTP server in the control plane's process, beside that of the API."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn


class _SideServer(uvicorn.Server):
    """uvicorn's server, which leaves the process's signals to the API's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve_beside(config: uvicorn.Config, listening: socket.socket) -> None:
    """Serve at `listening` until cancelled; open requests then have the time that `config` gives them."""
    server = _SideServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="side server")
    try:
        await asyncio.shield(serving)
    finally:
        server.should_exit = True
        await serving
