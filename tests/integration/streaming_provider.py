"""A provider whose streamed answers break off in every way."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

AGAIN = "x-weft-llm-again"
PROVIDER = "x-weft-llm-provider"
MODE = "x-mode"
"""How the first attempt is answered, and behind a space the second."""

SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
JSON = b'HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 11\r\n\r\n{"ok":true}'
DONE = b"data: [DONE]\n\n"


def event(number: int) -> bytes:
    """An event of a streamed chat completion."""
    choice = {"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


EVENTS = b"".join(map(event, range(3)))


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


_LAST = _chunk(b"")


class StreamingProvider:
    """Answers as the header MODE says; a mode that it does not know is a complete answer."""

    def __init__(self) -> None:
        self.port = 0
        self.open = 0
        """Connections."""
        self._asked: Counter[str] = Counter()
        self.requests: list[tuple[dict[str, str], bytes]] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.open += 1
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._answer(reader, writer):
                    pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request. Whether there may be another."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head)}
        body = await _body(reader, headers)
        self.requests.append((headers, body))
        mode, _, detail = self._turn(headers.get(MODE, "")).partition("=")
        if answer := _WHOLE.get(mode):
            writer.write(answer)
            return True
        writer.write(SSE)
        return await _streams.get(mode, _complete)(reader, writer, detail)

    def _turn(self, modes: str) -> str:
        first, _, second = modes.partition(" ")
        self._asked[modes] += bool(second)
        return first if self._asked[modes] % 2 or not second else second


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def _complete(_: asyncio.StreamReader, writer: asyncio.StreamWriter, detail: str) -> bool:
    """In pieces of `detail` bytes, if given."""
    whole = EVENTS + DONE
    size = int(detail or len(whole))
    for start in range(0, len(whole), size):
        writer.write(_chunk(whole[start : start + size]))
        if size < len(whole):
            await writer.drain()
            await asyncio.sleep(0)
    writer.write(_LAST)
    return True


async def _fin(_: asyncio.StreamReader, writer: asyncio.StreamWriter, detail: str) -> bool:
    """Break off after so many bytes."""
    whole = EVENTS + DONE
    writer.write(_chunk(whole[: int(detail or len(EVENTS))]) if detail != "0" else b"")
    await writer.drain()
    return False


async def _reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, detail: str) -> bool:
    await _fin(reader, writer, detail)
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
    return False


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, detail: str) -> bool:
    """Say nothing more, until the other end goes away."""
    await _fin(reader, writer, detail)
    await reader.read()
    return False


async def _clean_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, detail: str) -> bool:
    """An end without its last event."""
    await _fin(reader, writer, detail)
    writer.write(_LAST)
    return True


async def _flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter, __: str) -> bool:
    """Events as fast as they are taken, without an end."""
    while True:
        writer.write(_chunk(b"data: " + b"x" * 50_000 + b"\n\n"))
        await writer.drain()


async def _long_event(_: asyncio.StreamReader, writer: asyncio.StreamWriter, detail: str) -> bool:
    """One event of so many bytes, and the end."""
    writer.write(_chunk(b"data: " + b"x" * int(detail) + b"\n\n" + DONE) + _LAST)
    await writer.drain()
    return True


_WHOLE = {
    "json": JSON,
    "503": b"HTTP/1.1 503 no\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}",
}
_streams = {
    "fin": _fin,
    "rst": _reset,
    "silent": _silent,
    "clean": _clean_end,
    "flood": _flood,
    "long": _long_event,
}


@asynccontextmanager
async def streaming_provider() -> AsyncIterator[StreamingProvider]:
    """A provider on loopback."""
    provider = StreamingProvider()
    server = await asyncio.start_server(provider.serve, "127.0.0.1", 0, limit=1024 * 1024)
    provider.port = server.sockets[0].getsockname()[1]
    try:
        yield provider
    finally:
        server.close()
