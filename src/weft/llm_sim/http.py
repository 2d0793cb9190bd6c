"""HTTP/1.1 for the simulator, on httptools: small, with limits of size and time, and able to misbehave.

A web framework would cost most of the time that one request may take of a benchmark.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Any, Final, cast

import httptools

from weft.aio.tasks import TaskOwner
from weft.llm_sim.limits import Headers

MAX_BODY_BYTES: Final = 64 * 1024 * 1024
"""Larger requests are answered with 413."""

MAX_HEADER_BYTES: Final = 64 * 1024
"""Path and headers of one request; more is answered with 431."""

MAX_CONNECTIONS: Final = 10_000
"""Further ones are closed at once."""

MAX_PIPELINED: Final = 256
"""Requests that may lie in wait on one connection; with more it is closed."""

READ_TIMEOUT: Final = 30.0
"""Seconds within which a request that has begun must be there."""

_REASONS = {each.value: each.phrase for each in HTTPStatus}
_CHUNK_END = b"0\r\n\r\n"


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request, read to its end."""

    method: str
    path: str
    """Without the query."""
    query: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True)
class Job:
    """An answer that takes a while."""

    run: Callable[[], Coroutine[Any, Any, None]]
    """Cancelled when the client leaves."""
    ended: Callable[[bool], None]
    """Called in any case, even if it never began: with whether it was cancelled."""


Handle = Callable[[HttpRequest, "Connection"], Job | None]
"""Answers a request on its connection: at once, or by what it returns."""


class Server:
    """What the connections of one listener have in common."""

    def __init__(self, handle: Handle, refuse: Callable[[int, str], bytes]) -> None:
        """`refuse` makes the JSON body of an answer to what is no request, from a status and a text."""
        self.handle = handle
        self.refuse = refuse
        self.connections: set[Connection] = set()
        self.tasks = TaskOwner("llm-sim")

    def connection(self) -> Connection:
        """The protocol of a new connection."""
        return Connection(self)

    async def close(self) -> None:
        """Cut all connections, and wait for the end of what was under way on them."""
        for each in tuple(self.connections):
            each.abort()
        await self.tasks.close()


class Connection(asyncio.Protocol):
    """One connection; and, while a request is being answered, the way to answer it."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._task: asyncio.Task[None] | None = None
        self._request: HttpRequest | None = None
        self._waiting: deque[HttpRequest] = deque()
        self._deadline: asyncio.TimerHandle | None = None
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._refused = False
        self._chunked = False
        self._reading = False
        self._begin_message()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio's protocol."""
        # A stream's, though uvloop's does not derive from asyncio's class.
        self._transport = cast("asyncio.Transport", transport)
        if len(self._server.connections) >= MAX_CONNECTIONS:
            self._transport.abort()
            return
        self._server.connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 -- as asyncio calls it
        """Part of asyncio's protocol: whoever was to be answered has left."""
        self._server.connections.discard(self)
        self._transport = None
        self._stop_clock()
        self._waiting.clear()
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        """Part of asyncio's protocol."""
        if self._refused:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(400, "this server speaks nothing but HTTP/1.1")
        except httptools.HttpParserError as error:
            if not self._refused:
                self._refuse(400, f"this is not HTTP/1.1: {error}")
        if self._reading and self._deadline is None and not self._refused:
            # Most requests come whole: they need no clock.
            self._deadline = self._loop.call_later(READ_TIMEOUT, self._too_slow)
        if len(self._waiting) > MAX_PIPELINED:
            self.abort()

    def pause_writing(self) -> None:
        """Part of asyncio's protocol."""
        self._writable = self._loop.create_future()

    def resume_writing(self) -> None:
        """Part of asyncio's protocol."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None

    # What the parser finds.

    def on_message_begin(self) -> None:
        """Part of httptools' protocol."""
        self._begin_message()
        self._reading = True

    def on_url(self, url: bytes) -> None:
        """Part of httptools' protocol."""
        self._url += url
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Part of httptools' protocol."""
        self._count(len(name) + len(value))
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """Part of httptools' protocol."""
        length = self._headers.get("content-length", "")
        if length.isdecimal() and int(length) > MAX_BODY_BYTES:
            self._refuse(413, f"the request is larger than {MAX_BODY_BYTES} bytes")
        elif self._headers.get("expect", "").lower() == "100-continue" and self._transport is not None:
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        """Part of httptools' protocol."""
        self._size += len(body)
        if self._size > MAX_BODY_BYTES:
            self._refuse(413, f"the request is larger than {MAX_BODY_BYTES} bytes")
        elif not self._refused:
            self._body.append(body)

    def on_message_complete(self) -> None:
        """Part of httptools' protocol."""
        self._stop_clock()
        self._reading = False
        if self._refused:
            return
        target, _, query = self._url.decode("latin-1").partition("?")
        request = HttpRequest(
            self._parser.get_method().decode("latin-1"),
            target,
            query,
            self._headers,
            self._body[0] if len(self._body) == 1 else b"".join(self._body),
            self._parser.should_keep_alive(),
        )
        # A task that has answered is not over at that very moment, and must not be taken for the next one's.
        if self._request is None and self._task is None:
            self._answer(request)
        else:
            self._waiting.append(request)
            self._pause()

    # How a request is answered.

    def respond(
        self, status: int, body: bytes, headers: Headers = (), content_type: str = "application/json"
    ) -> None:
        """Answer with all of it."""
        head = _head(status, (("content-type", content_type), ("content-length", str(len(body))), *headers))
        self._write(head + body)
        self._end()

    def begin(self, status: int, headers: Headers, content_type: str, length: int | None = None) -> None:
        """Begin an answer: of `length` bytes, or chunked if that is not given."""
        self._chunked = length is None
        framing = ("transfer-encoding", "chunked") if length is None else ("content-length", str(length))
        self._write(_head(status, (("content-type", content_type), framing, *headers)))

    def write(self, data: bytes) -> None:
        """Go on with an answer that has begun."""
        if data:  # an empty chunk would be the end
            self._write(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    def finish(self) -> None:
        """End an answer that has begun."""
        if self._chunked:
            self._write(_CHUNK_END)
        self._end()

    def break_off(self) -> None:
        """Close the connection once what was written is sent, though the answer is not complete."""
        self._refused = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut the connection."""
        if self._transport is not None:
            self._transport.abort()

    async def drained(self) -> None:
        """Wait until the client has taken most of what was written."""
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def _answer(self, request: HttpRequest) -> None:
        self._request = request
        job = self._server.handle(request, self)
        if job is not None:
            self._task = self._server.tasks.start(job.run(), name="answer")
            self._task.add_done_callback(partial(self._answered, job))

    def _answered(self, job: Job, task: asyncio.Task[None]) -> None:
        self._task = None
        job.ended(task.cancelled())
        if self._request is not None and not self._refused:
            self.abort()  # its answer has not come to an end: it failed, or was cancelled
        elif not self._refused:
            self._next()

    def _end(self) -> None:
        request, self._request, self._chunked = self._request, None, False
        if request is not None and not request.keep_alive:
            self.break_off()
        elif self._task is None:
            self._next()

    def _next(self) -> None:
        if self._waiting and self._transport is not None:
            # Not from within the answer before: many of them would be as deep a recursion.
            self._loop.call_soon(self._answer_waiting)
        elif self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()

    def _answer_waiting(self) -> None:
        if self._request is None and self._waiting:
            self._answer(self._waiting.popleft())

    def _pause(self) -> None:
        if not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()

    def _begin_message(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []
        self._size = 0
        self._head_size = 0

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > MAX_HEADER_BYTES:
            self._refuse(431, f"the headers are larger than {MAX_HEADER_BYTES} bytes")

    def _too_slow(self) -> None:
        self._refuse(408, f"the request did not come to its end within {READ_TIMEOUT:g} s")

    def _refuse(self, status: int, text: str) -> None:
        """Say what is wrong with what is no request, and close the connection."""
        self._stop_clock()
        if self._refused:
            return
        if self._request is None:
            body = self._server.refuse(status, text)
            length = ("content-length", str(len(body)))
            self._write(
                _head(status, (("content-type", "application/json"), length, ("connection", "close"))) + body
            )
        self.break_off()

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


def _head(status: int, headers: Headers) -> bytes:
    lines = "".join([f"{name}: {value}\r\n" for name, value in headers])
    return f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\n{lines}\r\n".encode("latin-1", "replace")
