"""How large, and how slow, a request's body may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.errors import InvalidRequest
from weft.problems.answers import problem_response

BODY_TIMEOUT = 30.0
"""Seconds in which a body must have come, all of it."""

_CLOSING = {"connection": "close"}  # or the rest of the body would be waited for


class BodyLimit:
    """ASGI middleware: 413 for bodies too large, however they come; 408 for those that don't come in time."""

    def __init__(self, app: ASGIApp, limit: Callable[[], int]) -> None:
        """`limit` gives the bytes a body may have now."""
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit()
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if not length.isdigit() or int(length) > limit:
            # The server reads on and throws away: if it closed, the client might never read the answer.
            await problem_response(InvalidRequest(_too_large(limit)), 413)(scope, receive, send)
            return
        await self._app(scope, _Counted(receive, limit), send)


class _Counted:
    """A `receive` that gives up a body beyond its limits."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._left = limit
        self._deadline = asyncio.get_running_loop().time() + BODY_TIMEOUT
        self._done = False

    async def __call__(self) -> Message:
        if self._done:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time", _CLOSING) from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise HTTPException(413, _too_large(self._limit))
        self._done = not message.get("more_body", False)
        return message


def _too_large(limit: int) -> str:
    return f"the body is larger than {limit} bytes: put what is large elsewhere and send its address"
