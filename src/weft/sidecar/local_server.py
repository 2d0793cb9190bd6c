"""A small HTTP/1.1 server on this machine, for what the agent, or Envoy, asks of the sidecar."""

from __future__ import annotations

import asyncio
import json
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import h11

from weft.aio.tasks import TaskOwner
from weft.errors import PROBLEM_MEDIA_TYPE, MeshError

MAX_CONNECTIONS = 256
"""Connections that are served at a time; more are closed at once."""

REQUEST_TIMEOUT = 30.0
"""Seconds in which a request must come, on a connection that is kept, too."""

LINGER_TIMEOUT = 2.0
"""Seconds for which what comes after a refusal is read and thrown away."""

NO_CONTENT = 204

_CHUNK = 64 * 1024
_MAX_HEADERS = 16 * 1024


@dataclass(frozen=True, slots=True)
class LocalRequest:
    """What was asked."""

    method: str
    path: str
    """With the query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class LocalAnswer:
    """What is answered."""

    status: int = NO_CONTENT
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class _TooLarge(MeshError):
    code = "too-large"
    status = 413


Serve = Callable[[LocalRequest], Awaitable[LocalAnswer]]
"""Answers one request. A MeshError that it raises becomes problem details."""


class LocalServer:
    """Serves what one function answers."""

    def __init__(
        self, name: str, serve: Serve, *, max_body: int, request_timeout: float = REQUEST_TIMEOUT
    ) -> None:
        """`name` is for logs. A body has at most `max_body` bytes."""
        self._serve_request = serve
        self._max_body = max_body
        self._timeout = request_timeout
        self._connections = 0
        self._tasks = TaskOwner(name)
        self._server: asyncio.Server | None = None

    async def listen(self, host: str) -> int:
        """Listen at an address of loopback; return the port, which the system chooses. Raises OSError."""
        self._server = await asyncio.start_server(self._accepted, host, 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def listen_at(self, path: Path) -> None:
        """Listen at a Unix socket that is yet to be made. Raises OSError."""
        self._server = await asyncio.start_unix_server(self._accepted, path)

    async def listen_on(self, bound: socket.socket) -> None:
        """Listen at a socket that is bound; it is closed with the server. Raises OSError."""
        self._server = await asyncio.start_server(self._accepted, sock=bound)

    async def aclose(self) -> None:
        """Listen no more, and cut all connections."""
        if self._server is not None:
            self._server.close()
        await self._tasks.close()

    def _accepted(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._connections >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        try:
            self._tasks.start(self._serve(reader, writer), name="connection")
        except RuntimeError:  # closing
            writer.transport.abort()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        self._connections += 1
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_MAX_HEADERS)
        try:
            while await self._serve_one(http, reader, writer):
                http.start_next_cycle()
        except (OSError, TimeoutError, h11.ProtocolError):
            pass  # gone, silent, or no HTTP: there is nobody to tell
        finally:
            self._connections -= 1
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()

    async def _serve_one(self, http: h11.Connection, reader: StreamReader, writer: StreamWriter) -> bool:
        """Serve one request; whether there may be another."""
        try:
            async with asyncio.timeout(self._timeout):
                request = await self._receive(http, reader, writer)
            if request is None:
                return False
            answer = await self._serve_request(request)
        except h11.RemoteProtocolError as error:
            if http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
                return False
            answer = LocalAnswer(error.error_status_hint)
        except MeshError as error:
            answer = problem_answer(error)
        writer.write(_written(http, answer))
        async with asyncio.timeout(REQUEST_TIMEOUT):
            await writer.drain()
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            return True
        await _linger(reader, writer)
        return False

    async def _receive(
        self, http: h11.Connection, reader: StreamReader, writer: StreamWriter
    ) -> LocalRequest | None:
        """The next request; None if there comes none. Raises _TooLarge, and what h11 raises."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = http.next_event()
            if event is h11.NEED_DATA:
                if http.they_are_waiting_for_100_continue:
                    writer.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
                http.receive_data(await reader.read(_CHUNK))
            elif isinstance(event, h11.Request):
                head = event
                self._check_length(event)
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > self._max_body:
                    raise self._too_large()
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                return _request(head, bytes(body))
            else:
                return None

    def _check_length(self, request: h11.Request) -> None:
        """Refuse at once what says that it is too large, before it asks whether to go on."""
        length = dict(request.headers).get(b"content-length", b"0")
        if len(length) > 15 or int(length) > self._max_body:
            raise self._too_large()

    def _too_large(self) -> _TooLarge:
        return _TooLarge(f"a body has at most {self._max_body} bytes")


def problem_answer(error: MeshError, headers: Mapping[str, str] | None = None) -> LocalAnswer:
    """An error as problem details, with `headers` beside."""
    fields = {"Content-Type": PROBLEM_MEDIA_TYPE, **(headers or {})}
    return LocalAnswer(error.status, fields, json.dumps(error.problem()).encode())


def _request(head: h11.Request, body: bytes) -> LocalRequest:
    headers = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
    return LocalRequest(head.method.decode("ascii"), head.target.decode("ascii", "replace"), headers, body)


async def _linger(reader: StreamReader, writer: StreamWriter) -> None:
    """Let the answer arrive: closing a connection with unread data would take it back."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_TIMEOUT):
            while await reader.read(_CHUNK):
                pass


def _written(http: h11.Connection, answer: LocalAnswer) -> bytes:
    headers = list(answer.headers.items())
    if answer.status != NO_CONTENT:
        headers.append(("Content-Length", str(len(answer.body))))
    body = [h11.Data(answer.body)] if answer.body else []
    events = [h11.Response(status_code=answer.status, headers=headers), *body, h11.EndOfMessage()]
    return b"".join(http.send(event) or b"" for event in events)
