"""Connections whose TLS handshake is cancelled are closed."""

from __future__ import annotations

import asyncio
import gc

import httpx

from weft.aio.half_open import closing_half_open

LIMIT = 60.0


async def test_a_connection_is_closed_whose_handshake_is_cancelled() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def answer_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        begun.set()
        while await reader.read(1024):
            pass
        ended.set()
        writer.close()

    async with (
        asyncio.timeout(LIMIT),
        await asyncio.start_server(answer_nothing, "127.0.0.1", 0) as server,
        httpx.AsyncClient(verify=False, trust_env=False) as client,
    ):
        port = server.sockets[0].getsockname()[1]
        asking = asyncio.create_task(
            client.get(f"https://127.0.0.1:{port}/", extensions=closing_half_open(), timeout=LIMIT)
        )
        await begun.wait()
        asking.cancel()
        await asyncio.wait([asking])
        await ended.wait()
        del asking
        gc.collect()  # A connection that is still there would be warned of, which is an error.
