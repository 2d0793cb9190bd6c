"""One HTTP/1.1 request on a connection of its own, with a limit on what comes back.

For the agent's health and for Envoy's admin socket. A full HTTP client costs more memory than the rest of the
sidecar; h11 parses strictly and does no I/O.
"""

from __future__ import annotations

import os
from asyncio import StreamReader, StreamWriter
from contextlib import suppress
from dataclasses import dataclass

import h11

_CHUNK = 16 * 1024

JSON = "application/json"


class BadAnswer(Exception):
    """What came back is no HTTP answer, or a longer one than allowed."""


def why(error: OSError) -> str:
    """What the system says of a failed connection: asyncio's own text would be its address instead."""
    return os.strerror(error.errno) if error.errno else str(error)


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a request."""

    status: int
    body: bytes
    error: str = ""
    """The value of `x-weft-error`: the code of a mesh error."""

    @property
    def ok(self) -> bool:
        """Whether it says 2xx."""
        return 200 <= self.status < 300


async def exchange(
    reader: StreamReader,
    writer: StreamWriter,
    target: str,
    *,
    method: str = "GET",
    host: str = "localhost",
    json: bytes | None = None,
    media_type: str = JSON,
    max_body: int,
) -> Answer:
    """Send a request over a fresh connection, and close it.

    `target` is the path with its query; `json` its body, if it has one, or what `media_type` says that it is;
    `max_body` bytes are read at most.
    There is no time limit: wrap it in `asyncio.timeout`. Raises BadAnswer, or OSError where the connection
    breaks.
    """
    connection = h11.Connection(h11.CLIENT)
    try:
        for event in _request(method, target, host, json, media_type):
            writer.write(connection.send(event) or b"")
        await writer.drain()
        return await _answer(connection, reader, max_body)
    except h11.RemoteProtocolError as error:
        raise BadAnswer(f"not HTTP: {error}") from error
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def _request(method: str, target: str, host: str, json: bytes | None, media_type: str) -> list[h11.Event]:
    headers = [("Host", host), ("Connection", "close"), ("Accept", "*/*")]
    if json is not None:
        headers += [("Content-Type", media_type), ("Content-Length", str(len(json)))]
    body = [h11.Data(json)] if json else []
    return [h11.Request(method=method, target=target, headers=headers), *body, h11.EndOfMessage()]


async def _answer(connection: h11.Connection, reader: StreamReader, max_body: int) -> Answer:
    status, code = 0, ""
    body = bytearray()
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Response):
            status = event.status_code
            code = dict(event.headers).get(b"x-weft-error", b"").decode("ascii", "replace")
        elif isinstance(event, h11.Data):
            body += event.data
            if len(body) > max_body:
                raise BadAnswer(f"the answer is longer than {max_body} bytes")
        elif isinstance(event, (h11.EndOfMessage, h11.ConnectionClosed)) or event is h11.PAUSED:
            return Answer(status, bytes(body), code)
