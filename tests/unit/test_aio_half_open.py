"""Connections of requests that are cancelled while they are being made: none is left open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest

from weft.aio.half_open import Connecting

LIMIT = 60.0


class Server:
    """Takes connections, and answers nothing unless it is told to."""

    def __init__(self) -> None:
        self.port = 0
        self.asked = asyncio.Event()
        self.ended = asyncio.Event()
        self.answers = asyncio.Event()
        self._taken: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Server]:
        async with asyncio.timeout(LIMIT), await asyncio.start_server(self._take, "127.0.0.1", 0) as server:
            self.port = server.sockets[0].getsockname()[1]
            yield self
            # What connected has a moment to arrive here; then each connection must end, by its client.
            await asyncio.sleep(0)
            while self._taken:
                await asyncio.wait(self._taken)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._taken.add(task)
        try:
            await self._serve(reader, writer)
        finally:
            self._taken.discard(task)
            writer.close()
            await writer.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        self.asked.set()
        answering = asyncio.create_task(self._answer(writer))
        while await reader.read(1024):
            pass
        self.ended.set()
        answering.cancel()
        await asyncio.wait([answering])

    async def _answer(self, writer: asyncio.StreamWriter) -> None:
        await self.answers.wait()
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello")
        await writer.drain()


def collected() -> None:
    """Have it warned of connections that are still there, which is an error."""
    gc.collect()


async def test_a_connection_is_closed_whose_handshake_is_cancelled() -> None:
    async with Server().serving() as server, httpx.AsyncClient(verify=False, trust_env=False) as client:
        connecting = Connecting(patience=0.1)
        url = f"https://127.0.0.1:{server.port}/"
        work = client.get(url, extensions=connecting.extensions, timeout=LIMIT)
        asking = asyncio.create_task(connecting.finish(work))
        await server.asked.wait()
        asking.cancel()
        await asyncio.wait([asking])
        assert asking.cancelled()
        await server.ended.wait()
    del asking
    collected()


@pytest.mark.parametrize("steps", range(12))
async def test_wherever_a_request_is_cancelled_nothing_is_left_open(steps: int) -> None:
    async with Server().serving() as server, httpx.AsyncClient(trust_env=False) as client:
        connecting = Connecting()
        request = client.build_request(
            "GET", f"http://127.0.0.1:{server.port}/", extensions=connecting.extensions, timeout=LIMIT
        )

        async def ask() -> httpx.Response:
            return await connecting.finish(client.send(request, stream=True), httpx.Response.aclose)

        asking = asyncio.create_task(ask())
        server.answers.set()
        for _ in range(steps):
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
        if not asking.cancelled():
            await asking.result().aclose()
    del asking
    collected()


async def test_what_is_not_cancelled_ends_as_it_does() -> None:
    async with Server().serving() as server, httpx.AsyncClient(trust_env=False) as client:
        server.answers.set()
        connecting = Connecting()
        url = f"http://127.0.0.1:{server.port}/"
        assert (await connecting.finish(client.get(url, extensions=connecting.extensions))).text == "hello"
        connecting = Connecting()
        with pytest.raises(httpx.ConnectError):
            await connecting.finish(client.get("http://127.0.0.1:1/", extensions=connecting.extensions))
