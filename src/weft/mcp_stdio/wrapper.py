"""The server as a child, and what serves it, from start to end."""

from __future__ import annotations

import asyncio
import logging
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import mcp_types as types
from mcp import Client
from mcp.server.subscriptions import ListenHandler
from mcp.shared.exceptions import MCPError

from weft.aio.cancellation import end
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.signals import stop_signals
from weft.errors import Interrupted
from weft.mcp_stdio.changes import Changes
from weft.mcp_stdio.forwarding import ForwardingServer
from weft.mcp_stdio.http import HttpApp
from weft.mcp_stdio.pipe import over_pipes
from weft.sdk.server import bind, serving_http

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"

STOP_GRACE: Final = 2.0
"""Seconds that the server has to end when its standard input does, and again when it is told to."""

_PATIENCE = 10.0
"""Seconds after which it is said that the server has not answered yet."""

_CLIENT = types.Implementation(name="weft", version="1")


async def serve(command: Sequence[str], port: int, environ: Mapping[str, str]) -> int:
    """Start `command` and serve it at `port` of loopback until it ends, or a signal comes.

    Returns its exit code, as a shell tells it; 0 after a signal. Whatever happens to this process, the
    server ends with it. Raises OSError if it cannot be started, Interrupted if it speaks no MCP, Conflict if
    the port is taken.
    """
    stop = asyncio.Event()
    with stop_signals(stop.set):
        async with Guard() as guard:
            child = await spawn(command, guard=guard, environ=environ, stdin=PIPE, stdout=PIPE)
            serving = asyncio.create_task(_serve(child, port), name="serve")
            stopped = asyncio.create_task(stop.wait(), name="stop")
            exited = asyncio.create_task(child.exited(), name="server")
            try:
                await asyncio.wait((serving, stopped, exited), return_when=asyncio.FIRST_COMPLETED)
                return 0 if stopped.done() else await _outcome(serving, exited)
            finally:
                await end((serving, stopped))
                await _stop(child)
                await end((exited,))


async def _outcome(serving: asyncio.Task[None], exited: asyncio.Task[int]) -> int:
    """The server's exit code; if it goes on though it cannot be served, that is raised."""
    await asyncio.wait((exited,), timeout=STOP_GRACE)
    if not exited.done():
        await serving
    return await exited


async def _stop(child: Child) -> None:
    """End the server as MCP wants it: its standard input first."""
    if child.stdin is not None:
        child.stdin.close()
    try:
        async with asyncio.timeout(STOP_GRACE):
            await child.wait()
    except TimeoutError:
        await child.stop(STOP_GRACE)


async def _serve(child: Child, port: int) -> None:
    changes, ended = Changes(), asyncio.Event()
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(_met(child, changes, ended))
        listening = ListenHandler(changes.bus)
        server = ForwardingServer(client.session, listening)
        server.add_notification_handler("notifications/initialized", types.NotificationParams, changes.begun)
        app = HttpApp(server)
        await stack.enter_async_context(app.sessions.run())
        await stack.enter_async_context(serving_http(app, bind(HOST, port)))
        stack.callback(listening.close)
        logger.info("%s is served at port %d", server.name, port)
        following = asyncio.create_task(changes.follow(client), name="follow")
        stack.push_async_callback(end, (following,))
        await ended.wait()
        raise Interrupted("the server closed its standard streams, or wrote what cannot be read")


@asynccontextmanager
async def _met(child: Child, changes: Changes, ended: asyncio.Event) -> AsyncIterator[Client]:
    assert child.stdout is not None  # noqa: S101  # they are pipes
    assert child.stdin is not None  # noqa: S101
    client = Client(
        over_pipes(child.stdout, child.stdin, ended),
        message_handler=changes.heard,
        client_info=_CLIENT,
        cache=None,
    )
    waiting = asyncio.get_running_loop().call_later(
        _PATIENCE, logger.warning, "the server has not answered for %g s, and is waited for", _PATIENCE
    )
    try:
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(client)
            except MCPError as error:
                raise Interrupted(f"the server speaks no MCP: {error}") from error
            waiting.cancel()
            yield client
    finally:
        waiting.cancel()
