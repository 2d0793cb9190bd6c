"""Where agents tell their sidecar how their tasks go: a small HTTP server on loopback.

| request | body | what |
|---|---|---|
| `POST {lease}/extend` | | the agent is still at it |
| `POST {lease}/progress` | `{"fraction": 0.5, "message": "..."}` | how far it is; extends, too |
| `POST {lease}/partial` | JSON | a part of the result; extends, too |
| `POST {lease}/complete` | JSON, or nothing | the result |
| `POST {lease}/fail` | `{"detail": "...", "retry": true}` | the attempt has failed |

`{lease}` is the URL that the task brought, which nobody can guess. Answers are 204, or problem details: 410
where the lease is gone, so that the agent stops.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from asyncio import StreamReader, StreamWriter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import h11

from weft.aio.tasks import TaskOwner
from weft.errors import PROBLEM_MEDIA_TYPE, MeshError
from weft.events.json_format import parse_json
from weft.messaging.message import MAX_BODY_BYTES
from weft.sidecar.lease import Lease, LeaseGone, failure_in, progress_in
from weft.sidecar.settings import LOOPBACK

MAX_CONNECTIONS = 256
"""Connections that are served at a time; more are closed at once."""

REQUEST_TIMEOUT = 30.0
"""Seconds in which a request must come, on a connection that is kept, too."""

LINGER_TIMEOUT = 2.0
"""Seconds for which what comes after a refusal is read and thrown away."""

_PREFIX = "/leases/"
_CHUNK = 64 * 1024
_MAX_HEADERS = 16 * 1024
_TOKEN_BYTES = 24
_NO_CONTENT = 204


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str
    body: bytes


class _TooLarge(MeshError):
    code = "too-large"
    status = 413


class _NoSuchMethod(MeshError):
    code = "method-not-allowed"
    status = 405


class _NoSuchPath(MeshError):
    code = "not-found"
    status = 404


class LeaseServer:
    """Serves the leases that are open. Use it as an async context manager."""

    def __init__(self, host: str = LOOPBACK) -> None:
        """`host` is an address of loopback; the port is chosen when it is started."""
        self._host = host
        self._leases: dict[str, Lease] = {}
        self._connections = 0
        self._tasks = TaskOwner("lease server")
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises OSError where that is not possible."""
        self._server = await asyncio.start_server(self._accepted, self._host, 0)

    async def aclose(self) -> None:
        """Listen no more, and cut all connections."""
        if self._server is not None:
            self._server.close()
        await self._tasks.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @contextmanager
    def opened(self, lease: Lease) -> Iterator[str]:
        """Serve a lease for the block; yields its URL."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._leases[token] = lease
        try:
            yield f"http://{self.address}{_PREFIX}{token}"
        finally:
            del self._leases[token]
            lease.end()

    @property
    def address(self) -> str:
        """Where it listens, `host:port`. Raises RuntimeError unless it was started."""
        if self._server is None or not self._server.sockets:
            raise RuntimeError("the lease server has not been started")
        port = self._server.sockets[0].getsockname()[1]
        return f"[{self._host}]:{port}" if ":" in self._host else f"{self._host}:{port}"

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
            async with asyncio.timeout(REQUEST_TIMEOUT):
                request = await _receive(http, reader, writer)
            if request is None:
                return False
            await self._handle(request)
            answer = _answer(http, _NO_CONTENT, b"")
        except h11.RemoteProtocolError as error:
            if http.our_state not in {h11.IDLE, h11.SEND_RESPONSE}:
                return False
            answer = _answer(http, error.error_status_hint, b"")
        except MeshError as error:
            answer = _answer(http, error.status, json.dumps(error.problem()).encode())
        writer.write(answer)
        async with asyncio.timeout(REQUEST_TIMEOUT):
            await writer.drain()
        if http.our_state is h11.DONE and http.their_state is h11.DONE:
            return True
        await _linger(reader, writer)
        return False

    async def _handle(self, request: _Request) -> None:
        """Do what is asked for. Raises MeshError."""
        token, slash, action = request.path.removeprefix(_PREFIX).partition("/")
        if not request.path.startswith(_PREFIX) or not slash or action not in _ACTIONS:
            raise _NoSuchPath(f"there is nothing here; a lease takes POST at {', '.join(_ACTIONS)}")
        if request.method != "POST":
            raise _NoSuchMethod("a lease takes POST")
        lease = self._leases.get(token)
        if lease is None:
            raise LeaseGone("the lease is gone: stop working on the task")
        await _ACTIONS[action](lease, request.body)


async def _extend(lease: Lease, _: bytes) -> None:
    lease.extend()


async def _progress(lease: Lease, body: bytes) -> None:
    await lease.progress(*progress_in(_document(body)))


async def _partial(lease: Lease, body: bytes) -> None:
    await lease.partial(_document(body))


async def _complete(lease: Lease, body: bytes) -> None:
    lease.complete(_document(body) if body else None)


async def _fail(lease: Lease, body: bytes) -> None:
    detail, retry = failure_in(_document(body) if body else {})
    lease.fail(detail, retry=retry)


_ACTIONS = {
    "extend": _extend,
    "progress": _progress,
    "partial": _partial,
    "complete": _complete,
    "fail": _fail,
}


def _document(body: bytes) -> Any:
    return parse_json(body, "the body")


async def _receive(http: h11.Connection, reader: StreamReader, writer: StreamWriter) -> _Request | None:
    """The next request; None if there comes none. Raises _TooLarge, and what h11 raises."""
    method, path, body = "", "", bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            if http.they_are_waiting_for_100_continue:
                writer.write(http.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            http.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request):
            method, path = event.method.decode("ascii"), event.target.decode("ascii", "replace")
            _check_length(event)
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > MAX_BODY_BYTES:
                raise _TooLarge(f"a body has at most {MAX_BODY_BYTES} bytes")
        elif isinstance(event, h11.EndOfMessage):
            return _Request(method, path, bytes(body))
        else:
            return None


def _check_length(request: h11.Request) -> None:
    """Refuse at once what says that it is too large, before it asks whether to go on."""
    length = dict(request.headers).get(b"content-length", b"0")
    if len(length) > 15 or int(length) > MAX_BODY_BYTES:
        raise _TooLarge(f"a body has at most {MAX_BODY_BYTES} bytes")


async def _linger(reader: StreamReader, writer: StreamWriter) -> None:
    """Let the answer arrive: closing a connection with unread data would take it back."""
    writer.write_eof()
    with suppress(TimeoutError):
        async with asyncio.timeout(LINGER_TIMEOUT):
            while await reader.read(_CHUNK):
                pass


def _answer(http: h11.Connection, status: int, body: bytes) -> bytes:
    headers = [] if status == _NO_CONTENT else [("Content-Length", str(len(body)))]
    if body:
        headers.append(("Content-Type", PROBLEM_MEDIA_TYPE))
    response = h11.Response(status_code=status, headers=headers)
    parts = [http.send(response), http.send(h11.Data(body)) if body else b"", http.send(h11.EndOfMessage())]
    return b"".join(part for part in parts if part)
