"""Connections to NATS that end in ways a nats-server cannot be made to end them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest
from nats.aio.client import Client
from tests.secured_nats import secured_nats

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.store.nats_connection import NatsConnection

PATIENCE = 60.0
_INFO = b'INFO {"server_id":"x","version":"2.15.0","headers":true,"max_payload":1048576}\r\n'
_NO_FAREWELL = struct.pack("ii", 1, 0)
_MUCH = 1024 * 1024
"""Bytes that wait in the client; in the sockets' buffers wait as many as these take."""


async def test_a_reset_while_much_is_to_be_written_is_noticed() -> None:
    peers: list[asyncio.StreamWriter] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        writer.write(_INFO)
        while line := await reader.readline():
            if line.startswith(b"PING"):
                writer.write(b"PONG\r\n")

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        connection = await NatsConnection.open([url], name="test", timeout=5.0)
        client = connection.sender
        assert client is not None
        peers[0].transport.pause_reading()  # type: ignore[attr-defined] # it is a socket's
        async with asyncio.timeout(PATIENCE):
            while client.pending_data_size < _MUCH:
                await client.publish("x", bytes(_MUCH // 2 - 100))
                await asyncio.sleep(0)
        peers[0].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_FAREWELL)
        peers[0].transport.abort()

        async def noticed() -> bool:
            return connection.sender is not client

        async with asyncio.timeout(PATIENCE):
            await until(noticed)
        await connection.close()
        for each in peers:
            each.close()


async def test_a_server_that_falls_silent_is_given_up_without_a_farewell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TLS would wait for the answer to one: here for an hour, else for 30 seconds, longer than a lease."""
    monkeypatch.setattr("asyncio.constants.SSL_SHUTDOWN_TIMEOUT", 3600.0)
    async with secured_nats(tmp_path) as secured:

        async def given_up() -> bool:
            return not secured.control.connected

        secured.server.freeze()
        try:
            async with asyncio.timeout(PATIENCE):
                await until(given_up)
        finally:
            secured.server.thaw()


async def test_of_several_servers_the_one_that_was_lost_comes_last() -> None:
    peers: list[tuple[int, asyncio.StreamWriter]] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append((writer.get_extra_info("sockname")[1], writer))
        writer.write(_INFO)
        with suppress(ConnectionError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        writer.close()

    async with AsyncExitStack() as stack:
        servers = [await stack.enter_async_context(await _listening(greet)) for _ in range(2)]
        urls = [f"nats://127.0.0.1:{each.sockets[0].getsockname()[1]}" for each in servers]
        connection = await NatsConnection.open(urls, name="test", timeout=PATIENCE)
        stack.push_async_callback(connection.close)
        for losses in range(1, 8):
            former = connection.sender
            peers[-1][1].transport.abort()

            async def another(former: Client | None = former) -> bool:
                return connection.sender not in {None, former}

            async with asyncio.timeout(PATIENCE):
                await until(another)
            assert len(peers) == losses + 1
            assert peers[-1][0] != peers[-2][0]


async def _listening(
    greet: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> asyncio.Server:
    return await asyncio.start_server(greet, "127.0.0.1", 0)


async def test_who_connects_can_be_cancelled_at_any_moment() -> None:
    """nats-py by itself goes on after every tenth of these cancellations."""
    peers: list[asyncio.StreamWriter] = []

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peers.append(writer)
        writer.write(_INFO)
        with suppress(ConnectionError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(greet, "127.0.0.1", 0) as server:
        with reserve_port("127.0.0.1") as nobody:
            for port in (server.sockets[0].getsockname()[1], nobody.port):
                for turns in range(30):
                    await _cancelled_after(turns, f"nats://127.0.0.1:{port}")
        async with asyncio.timeout(PATIENCE):
            await asyncio.gather(*(each.wait_closed() for each in peers), return_exceptions=True)


async def _cancelled_after(turns: int, url: str) -> None:
    """Cancel a connecting after so many turns of the event loop: it ends as cancelled."""
    task = asyncio.create_task(NatsConnection.open([url], name="test", timeout=PATIENCE))
    for _ in range(turns):
        await asyncio.sleep(0)
    if task.cancel():
        await asyncio.wait([task])
        assert task.cancelled()
    elif task.exception() is None:
        await task.result().close()
