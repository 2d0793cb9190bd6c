"""Receivers of webhooks for tests, good ones and evil ones: raw servers on loopback."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Received:
    """One request."""

    target: str
    headers: dict[str, str]
    body: bytes


Answering = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class Receiver:
    """A server that takes down what it gets, and answers as it is told."""

    port: int = 0
    answers: list[Answering] = field(default_factory=list)
    """One for each request to come; the last for all that follow."""
    received: list[Received] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{HOST}:{self.port}/hook"


def status(code: int, *headers: str) -> Answering:
    """Answer with a status."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        lines = (f"HTTP/1.1 {code} X", "content-length: 0", *headers, "", "")
        writer.write("\r\n".join(lines).encode())
        await writer.drain()

    return answer


async def hang(writer: asyncio.StreamWriter) -> None:
    """Never answer, until the other end is tired of it."""
    await asyncio.Event().wait()


async def drip(writer: asyncio.StreamWriter) -> None:
    """Answer a byte at a time, without end."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-a: b\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)


async def flood(writer: asyncio.StreamWriter) -> None:
    """Answer with more headers than anybody wants."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"x-a: " + b"b" * 60_000)
        await writer.drain()


async def garbage(writer: asyncio.StreamWriter) -> None:
    """Answer in no HTTP."""
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()


async def endless_body(writer: asyncio.StreamWriter) -> None:
    """Answer with a body that never ends."""
    writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        await writer.drain()


@asynccontextmanager
async def receiver(*answers: Answering, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A running receiver; gone when the context is left."""
    state = Receiver(answers=list(answers or (status(200),)))
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.add(task)
        task.add_done_callback(serving.discard)
        state.connections += 1
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            state.received.append(await _request(reader))
            answer = state.answers.pop(0) if len(state.answers) > 1 else state.answers[0]
            closed = asyncio.create_task(reader.read())
            answering = asyncio.ensure_future(answer(writer))
            await asyncio.wait((closed, answering), return_when=asyncio.FIRST_COMPLETED)
            for each in (closed, answering):
                each.cancel()
            await asyncio.gather(closed, answering, return_exceptions=True)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0, ssl=tls)
    state.port = server.sockets[0].getsockname()[1]
    try:
        yield state
    finally:
        server.close()
        for task in tuple(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)
        await server.wait_closed()


async def _request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    line, *fields = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (each.split(": ", 1) for each in fields)}
    body = await reader.readexactly(int(headers["content-length"]))
    return Received(line.split(" ")[1], headers, body)
