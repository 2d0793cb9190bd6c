"""Requests of the sidecar to its agent: HTTP/1.1 on a few connections that are kept."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import h11

from weft.errors import Interrupted, InvalidRequest, Refused, TimedOut
from weft.model.node import Address
from weft.sidecar.http import why

IDLE_TIMEOUT = 1.5
"""Seconds for which an idle connection is used again. Common servers close theirs after two, or five."""

CONNECT_TIMEOUT = 5.0
"""Seconds in which a connection must be there."""

MAX_ANSWER_HEADERS = 64 * 1024
"""Bytes of an answer's headers."""

_CHUNK = 64 * 1024
_ABORTED_BY = (OSError, h11.RemoteProtocolError)


@dataclass(frozen=True, slots=True)
class AgentAnswer:
    """What the agent answered."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes
    truncated: bool = False
    """Whether the body was longer than wanted; what there is of it is cut off."""

    @property
    def ok(self) -> bool:
        """Whether it says 2xx."""
        return 200 <= self.status < 300


@dataclass(slots=True)
class _Connection:
    reader: StreamReader
    writer: StreamWriter
    http: h11.Connection
    idle_since: float = 0.0

    @property
    def open(self) -> bool:
        """Whether nothing has been heard yet of its end."""
        ended = self.reader.at_eof() or self.reader.exception() is not None
        return not ended and not self.writer.is_closing()

    def abort(self) -> None:
        self.writer.transport.abort()


class AgentClient:
    """Speaks to one agent. Close it, or use it as an async context manager.

    How many requests are made at a time is for its users to limit.
    """

    def __init__(self, agent: Address, *, max_idle: int = 4) -> None:
        """`max_idle` connections are kept while nothing is asked."""
        self._agent = agent
        self._max_idle = max_idle
        self._idle: list[_Connection] = []
        self._closed = False

    async def post(
        self, target: str, headers: Mapping[str, str], body: bytes, *, max_body: int, timeout: float | None
    ) -> AgentAnswer:
        """POST `body` to the path `target`; of the answer read `max_body` bytes of body at most.

        Raises Refused if the agent accepts no connection: nothing was sent. Raises TimedOut if there is no
        full answer within `timeout` seconds, and Interrupted if the connection breaks or what comes is no
        HTTP: then the agent may have worked on it. InvalidRequest for headers that HTTP cannot carry.
        Cancelling it closes the connection.
        """
        try:
            async with asyncio.timeout(timeout):
                connection = await self._connection()
                return await self._exchange(connection, target, headers, body, max_body)
        except TimeoutError as error:
            raise TimedOut(f"POST {target}: the agent did not answer within {timeout or 0:g} s") from error

    async def aclose(self) -> None:
        """Close the connections that are idle; those in use close with their answer."""
        self._closed = True
        connections, self._idle = self._idle, []
        for each in connections:
            each.writer.close()
        for each in connections:
            with suppress(OSError):
                await each.writer.wait_closed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _connection(self) -> _Connection:
        now = asyncio.get_running_loop().time()
        while self._idle:
            kept = self._idle.pop()
            if now - kept.idle_since < IDLE_TIMEOUT and kept.open:
                return kept
            kept.writer.close()
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                reader, writer = await asyncio.open_connection(self._agent.host, self._agent.port)
        except TimeoutError as error:
            raise Refused(f"the agent at {self._agent} accepts no connection") from error
        except OSError as error:
            raise Refused(f"the agent at {self._agent} cannot be reached: {why(error)}") from error
        return _Connection(reader, writer, _http())

    async def _exchange(
        self, connection: _Connection, target: str, headers: Mapping[str, str], body: bytes, max_body: int
    ) -> AgentAnswer:
        kept = False
        try:
            self._send(connection, target, headers, body)
            # An answer may come before all is sent: who refuses a large body need not read it.
            answer = await _answer(connection, max_body)
            kept = not answer.truncated and self._keep(connection)
        except h11.LocalProtocolError as error:
            raise InvalidRequest(f"POST {target}: cannot be put into HTTP ({error})") from error
        except _ABORTED_BY as error:
            reason = why(error) if isinstance(error, OSError) else f"not HTTP: {error}"
            raise Interrupted(f"POST {target}: the agent at {self._agent} broke off ({reason})") from error
        else:
            return answer
        finally:
            if not kept:
                connection.abort()

    def _send(self, connection: _Connection, target: str, headers: Mapping[str, str], body: bytes) -> None:
        http = connection.http
        fields = [("Host", str(self._agent)), ("Content-Length", str(len(body))), *headers.items()]
        request = h11.Request(method="POST", target=target, headers=fields)
        parts = [
            http.send(request),
            http.send(h11.Data(body)) if body else b"",
            http.send(h11.EndOfMessage()),
        ]
        connection.writer.writelines([part for part in parts if part])

    def _keep(self, connection: _Connection) -> bool:
        http = connection.http
        reusable = http.our_state is h11.DONE and http.their_state is h11.DONE
        if self._closed or not reusable or len(self._idle) >= self._max_idle:
            return False
        http.start_next_cycle()
        connection.idle_since = asyncio.get_running_loop().time()
        self._idle.append(connection)
        return True


async def _answer(connection: _Connection, max_body: int) -> AgentAnswer:
    status, headers, body = 0, {}, bytearray()
    while True:
        event = connection.http.next_event()
        if event is h11.NEED_DATA:
            connection.http.receive_data(await connection.reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
            headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_body:
                return AgentAnswer(status, headers, bytes(body[:max_body]), truncated=True)
        elif isinstance(event, h11.EndOfMessage) or event is h11.PAUSED:
            return AgentAnswer(status, headers, bytes(body))
        elif isinstance(event, h11.ConnectionClosed):
            raise h11.RemoteProtocolError("closed without an answer")


def _http() -> h11.Connection:
    return h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_HEADERS)
