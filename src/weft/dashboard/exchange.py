"""HTTP with an ASGI application of this process: no sockets, and bodies in pieces as they are sent."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.types import ASGIApp, Message

from weft.aio.cancellation import end

_PIECES = 64  # of an answer, that are not read yet

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked."""

    method: str
    target: str
    """Path and query, as on a request's first line."""
    headers: Mapping[str, str]
    body: bytes = b""
    address: str = ""
    """For whom this is: as the client's address."""

    def scope(self) -> dict[str, Any]:
        """This request, as ASGI has it."""
        parts = urlsplit(self.target)
        headers = {"host": "control", **self.headers}
        if self.body:
            headers |= {"content-type": "application/json", "content-length": str(len(self.body))}
        return {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": self.method,
            "scheme": "https",
            "path": unquote(parts.path),
            "raw_path": parts.path.encode("ascii"),
            "query_string": parts.query.encode("ascii"),
            "root_path": "",
            "headers": [(name.encode("ascii"), value.encode("latin-1")) for name, value in headers.items()],
            "server": ("control", 443),
            "client": (self.address, 0),
            "state": {},
        }


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that has begun."""

    status: int
    pieces: AsyncIterator[bytes]
    """Its body, which ends when it is complete, or when the application failed."""


@asynccontextmanager
async def exchange(app: ASGIApp, request: Request) -> AsyncIterator[Answer]:
    """`app`'s answer to `request`, which ends with the context. Raises UnicodeError if it is no request."""
    messages: asyncio.Queue[Message | None] = asyncio.Queue(_PIECES)
    asked = False
    never: asyncio.Event = asyncio.Event()

    async def receive() -> Message:
        nonlocal asked
        if not asked:
            asked = True
            return {"type": "http.request", "body": request.body, "more_body": False}
        await never.wait()
        return {"type": "http.disconnect"}

    async def run() -> None:
        try:
            await app(request.scope(), receive, messages.put)
        except Exception:  # what a server would do: the one who asked hears that there is no answer
            logger.exception("the API failed at %s %s", request.method, urlsplit(request.target).path)
        finally:
            await messages.put(None)

    request.scope()  # or its error would be the task's
    running = asyncio.create_task(run(), name=f"{request.method} {urlsplit(request.target).path}")
    try:
        first = await messages.get()
        status = 500 if first is None else int(first["status"])
        pieces = _pieces(messages) if first is not None else _nothing()
        yield Answer(status, pieces)
    finally:
        await end([running])


async def _pieces(messages: asyncio.Queue[Message | None]) -> AsyncGenerator[bytes, None]:
    while (message := await messages.get()) is not None:
        if message["type"] != "http.response.body":
            continue
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def _nothing() -> AsyncGenerator[bytes, None]:
    nothing: tuple[bytes, ...] = ()
    for each in nothing:
        yield each
