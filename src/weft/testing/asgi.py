"""A transport that calls an ASGI application in the same process, without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import anyio
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message

from weft.errors import Interrupted
from weft.sdk.transport import Answer, Call

UNREAD_MESSAGES = 16
"""Pieces of an answer that wait for their reader before the application is held up, as by a socket."""


class AsgiTransport:
    """A way into the mesh whose other end is an ASGI application."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    @asynccontextmanager
    async def exchange(self, call: Call) -> AsyncIterator[Answer]:
        """Send `call` and receive the head of its answer, as Transport says.

        Leaving the context waits until the application has noticed. Raises what the application raises, since
        that is a bug in it, but for ConnectionError: so it says that its connection broke.
        """
        connection = _Connection(call)
        app = asyncio.create_task(connection.run(self._app), name=f"call to {call.host}")
        try:
            yield await connection.answer()
        finally:
            connection.close()
            await app

    async def aclose(self) -> None:
        """Nothing is held open."""


class _Connection:
    """The two directions of one call."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._unread_body = True
        self._closed = asyncio.Event()
        self._writer, self._reader = anyio.create_memory_object_stream[Message](UNREAD_MESSAGES)

    async def run(self, app: ASGIApp) -> None:
        with self._writer, suppress(ConnectionError):
            await app(_scope(self._call), self._receive, self._send)

    async def answer(self) -> Answer:
        head = await self._next()
        return _AsgiAnswer(head["status"], Headers(raw=head.get("headers", [])), self)

    async def body(self) -> AsyncGenerator[bytes, None]:
        more = True
        while more:
            message = await self._next()
            yield message.get("body", b"")
            more = message.get("more_body", False)

    def close(self) -> None:
        """The caller goes away."""
        self._closed.set()
        self._reader.close()

    async def _next(self) -> Message:
        try:
            return await self._reader.receive()
        except anyio.EndOfStream:
            raise Interrupted(
                f"the call to {self._call.host} broke midway: it may or may not have been processed"
            ) from None

    async def _receive(self) -> Message:
        if self._unread_body:
            self._unread_body = False
            return {"type": "http.request", "body": self._call.body, "more_body": False}
        await self._closed.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        with suppress(anyio.BrokenResourceError):  # as with a server: nobody is told that the caller is gone
            await self._writer.send(message)


@dataclass(frozen=True, slots=True)
class _AsgiAnswer:
    status: int
    headers: Mapping[str, str]
    _connection: _Connection

    def chunks(self) -> AsyncGenerator[bytes, None]:
        return self._connection.body()


def _scope(call: Call) -> dict[str, Any]:
    path, _, query = call.target.partition("?")
    headers = {"host": call.host, "content-length": str(len(call.body)), **call.headers}
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": call.method,
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": None,
        "server": None,
    }
