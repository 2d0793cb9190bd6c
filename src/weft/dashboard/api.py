"""Asking the control plane's API, in this process, as the viewer: by HTTP, with the viewer's own token."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from starlette.types import ASGIApp

from weft.dashboard.exchange import Answer, Request, exchange
from weft.dashboard.viewer import Viewer
from weft.errors import (
    Conflict,
    Denied,
    FieldProblem,
    InvalidRequest,
    InvalidResource,
    MeshError,
    NotFound,
    TimedOut,
    TooMany,
    Unauthenticated,
    Unavailable,
)
from weft.model.operator import Scope

TIMEOUT = 15.0
"""Seconds the API has to answer."""

MAX_ANSWER_BYTES = 32 * 1024 * 1024
"""An answer, or an event of a stream, that is larger is not taken."""

MAX_DETAIL = 500
"""Characters of an error's text that are shown."""

MAX_PROBLEMS = 100
"""Wrong fields of a resource that are told."""

SESSION_PATH = "/v1/dashboard/session"

_ERRORS: dict[int, type[MeshError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    429: TooMany,
    503: Unavailable,
    504: TimedOut,
}


class Api:
    """The API that `app` serves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def viewer(self, token: str, address: str) -> Viewer:
        """Who holds `token`. Raises Unauthenticated, Unavailable."""
        answer = await self._ask(_request("GET", SESSION_PATH, token, address))
        return Viewer(token, str(answer["name"]), Scope(answer["scope"]), str(answer["mesh"]), address)

    async def ask(self, viewer: Viewer, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the API answers, as JSON types; None if nothing. Raises the MeshError that it answers with."""
        return await self._ask(_request(method, path, viewer.token, viewer.address, body))

    async def events(self, viewer: Viewer, path: str) -> AsyncGenerator[tuple[str, Any], None]:
        """The names and the JSON of the Server-Sent Events at `path`, until the API ends them.

        Raises the MeshError that it answers with instead.
        """
        try:
            async with exchange(self._app, _request("GET", path, viewer.token, viewer.address)) as answer:
                if answer.status >= 400:
                    raise _error(answer.status, await _whole(answer))
                async with aclosing(_events(answer)) as events:
                    async for each in events:
                        yield each
        except UnicodeError as error:
            raise InvalidRequest("this cannot be asked of the control plane") from error

    async def _ask(self, request: Request) -> Any:
        try:
            async with asyncio.timeout(TIMEOUT), exchange(self._app, request) as answer:
                body = await _whole(answer)
        except TimeoutError as error:
            raise Unavailable(f"the control plane did not answer within {TIMEOUT:g} s") from error
        except UnicodeError as error:
            raise InvalidRequest("this cannot be asked of the control plane") from error
        if answer.status >= 400:
            raise _error(answer.status, body)
        return _json(body) if body else None


def _request(
    method: str, path: str, token: str, address: str, body: Mapping[str, Any] | None = None
) -> Request:
    content = b"" if body is None else json.dumps(body).encode()
    return Request(method, path, {"authorization": f"Bearer {token}"}, content, address)


async def _whole(answer: Answer) -> bytes:
    parts, size = [], 0
    async for piece in answer.pieces:
        size += len(piece)
        if size > MAX_ANSWER_BYTES:
            raise Unavailable(f"the control plane answers with more than {MAX_ANSWER_BYTES} bytes")
        parts.append(piece)
    return b"".join(parts)


async def _events(answer: Answer) -> AsyncGenerator[tuple[str, Any], None]:
    """The API's own events: a name, and data of one line."""
    unfinished = b""
    async for piece in answer.pieces:
        *whole, unfinished = (unfinished + piece).split(b"\n\n")
        if len(unfinished) > MAX_ANSWER_BYTES:
            raise Unavailable("an event of the control plane is too large")
        for each in whole:
            lines = dict(line.partition(b": ")[::2] for line in each.split(b"\n"))
            if b"data" in lines:
                yield lines.get(b"event", b"message").decode(), _json(lines[b"data"])


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError as error:
        raise Unavailable("the control plane's answer is not JSON") from error


def _error(status: int, body: bytes) -> MeshError:
    try:
        problem = json.loads(body)
        if status == InvalidResource.status and (problems := _problems(problem)):
            return InvalidResource(problems)
        detail = str(problem["detail"])[:MAX_DETAIL]
    except (ValueError, KeyError, TypeError, AttributeError):
        detail = f"the control plane answered {status}"
    return _ERRORS.get(status, MeshError)(detail)


def _problems(problem: Mapping[str, Any]) -> list[FieldProblem]:
    """The wrong fields that an answer names."""
    return [
        FieldProblem(
            str(each.get("message"))[:MAX_DETAIL],
            str(each.get("field") or "")[:MAX_DETAIL],
            str(each.get("file") or "")[:MAX_DETAIL],
            int(each.get("line") or 0),
        )
        for each in (problem.get("errors") or [])[:MAX_PROBLEMS]
    ]
