"""Serving an agent over HTTP on a socket of its own, until it is told to stop."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn
from starlette.types import ASGIApp

from weft.errors import Conflict

if TYPE_CHECKING:  # who serves something else need not load all of an agent
    from weft.sdk.app import AgentApp

KEEP_ALIVE = 3900
"""Seconds an unused connection stays open: longer than the hour after which Envoy closes its end, so that no
call is sent into a connection that this end is just closing."""

MAX_HEADER_BYTES = 64 * 1024
"""As much as Envoy lets through."""


def bind(host: str, port: int) -> socket.socket:
    """Return a socket bound to `host` and `port`; 0: any. Raises Conflict if it is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise Conflict(
            f"cannot listen at {host}:{port} ({error.strerror}): stop what uses it, or choose another port"
        ) from error
    return listener


@asynccontextmanager
async def serving(app: AgentApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve an agent on `listener` for the block; at its end drain, then stop."""
    async with serving_http(app, listener):
        try:
            yield
        finally:
            app.drain()
            await app.drained(app.settings.drain_timeout)


@asynccontextmanager
async def serving_http(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve any ASGI application on `listener`, which must be bound, for the block.

    At its end requests in flight have a second to finish.
    """
    server = _Server(_config(app))
    task = asyncio.create_task(server.serve(sockets=[listener]), name="http server")
    ready = asyncio.create_task(server.ready.wait(), name="http server ready")
    try:
        await asyncio.wait((task, ready), return_when=asyncio.FIRST_COMPLETED)
        yield
    finally:
        ready.cancel()
        server.should_exit = True
        await task


class _Server(uvicorn.Server):
    """uvicorn's server, which says when it is ready and leaves the signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        ws="none",
        lifespan="auto",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=1,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
    )
