"""Connections to NATS that end in ways a nats-server cannot be made to end them."""

from __future__ import annotations

import asyncio
import socket
import struct

from weft.aio.poll import until
from weft.store.nats_connection import NatsConnection

PATIENCE = 30.0
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
