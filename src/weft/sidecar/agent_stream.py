"""A request of the sidecar to its agent whose answer is read as it comes, on a connection of its own."""

from __future__ import annotations

import asyncio
from asyncio import StreamReader
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h11

from weft.errors import AgentFailed, Interrupted, InvalidRequest, Refused
from weft.model.node import Address
from weft.sidecar.agent_client import CONNECT_TIMEOUT, MAX_ANSWER_HEADERS
from weft.sidecar.http import why

_CHUNK = 64 * 1024


@dataclass(frozen=True, slots=True)
class StreamedAnswer:
    """The head of an answer, whose body is still to come."""

    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    _what: str
    _http: h11.Connection
    _reader: StreamReader

    @property
    def media_type(self) -> str:
        """Of the body, in lower case, without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, once, as it arrives. Raises Interrupted if the connection breaks before its end."""
        while isinstance(event := await _next_event(self._http, self._reader, self._what), h11.Data):
            yield bytes(event.data)

    async def body(self, limit: int) -> bytes:
        """All of the body. Raises AgentFailed if it is longer than `limit` bytes, and Interrupted."""
        body = bytearray()
        async for chunk in self.chunks():
            body += chunk
            if len(body) > limit:
                raise AgentFailed(
                    f"{self._what}: the answer is longer than {limit} bytes", agent_status=self.status
                )
        return bytes(body)


@asynccontextmanager
async def agent_stream(
    agent: Address, method: str, target: str, headers: Mapping[str, str], body: bytes = b""
) -> AsyncIterator[StreamedAnswer]:
    """Send a request, and give the head of its answer; leaving the context gives up on the rest.

    There is no time limit but on the connection: wrap it in `asyncio.timeout`. Raises Refused if the agent
    accepts no connection, Interrupted if it breaks or what comes is no HTTP, InvalidRequest for headers that
    HTTP cannot carry.
    """
    what = f"{method} {target}"
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(agent.host, agent.port)
    except TimeoutError as error:
        raise Refused(f"the agent at {agent} accepts no connection") from error
    except OSError as error:
        raise Refused(f"the agent at {agent} cannot be reached: {why(error)}") from error
    http = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_ANSWER_HEADERS)
    try:
        # An answer may come before all is sent: who refuses a large body need not read it.
        writer.writelines(_request(http, agent, method, target, headers, body))
        head = await _next_event(http, reader, what)
        while isinstance(head, h11.InformationalResponse):
            head = await _next_event(http, reader, what)
        if not isinstance(head, h11.Response):
            raise Interrupted(f"{what}: the agent closed the connection without an answer")
        fields = {name.decode("ascii"): value.decode("latin-1") for name, value in head.headers}
        yield StreamedAnswer(head.status_code, fields, what, http, reader)
    finally:
        writer.transport.abort()


def _request(
    http: h11.Connection, agent: Address, method: str, target: str, headers: Mapping[str, str], body: bytes
) -> list[bytes]:
    fields = [("Host", str(agent)), ("Connection", "close"), *headers.items()]
    if body:
        fields.append(("Content-Length", str(len(body))))
    events = [
        h11.Request(method=method, target=target, headers=fields),
        *([h11.Data(body)] if body else []),
        h11.EndOfMessage(),
    ]
    try:
        return [http.send(event) or b"" for event in events]
    except h11.LocalProtocolError as error:
        raise InvalidRequest(f"{method} {target}: cannot be put into HTTP ({error})") from error


async def _next_event(http: h11.Connection, reader: StreamReader, what: str) -> h11.Event:
    """The next event of the answer; EndOfMessage again and again once it is there in full."""
    try:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
    except h11.RemoteProtocolError as error:
        raise Interrupted(f"{what}: the agent broke off (not HTTP: {error})") from error
    except OSError as error:
        raise Interrupted(f"{what}: the agent broke off ({why(error)})") from error
    return h11.EndOfMessage() if event is h11.PAUSED else event  # type: ignore[return-value]
