"""Reading a request to an agent, and refusing what is none."""

from __future__ import annotations

import asyncio

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

from weft.errors import InvalidRequest
from weft.sdk.handler import Handler
from weft.sdk.problem import Problem, Rejection
from weft.sdk.wire import EVENT_STREAM, JSON

BODY_TIMEOUT = 30.0
"""Seconds a caller may take to send the body."""


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body. Raises Rejection if it is not JSON by its header, over `limit` bytes, or too slow."""
    # Also what keeps a web page from calling an agent on this machine: a browser asks first before it sends
    # this type to another origin.
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != JSON:
        raise _rejected(415, f"send Content-Type: {JSON}, not {content_type or 'none'!r}")
    try:
        async with asyncio.timeout(BODY_TIMEOUT):
            return await _read(request, limit)
    except TimeoutError:
        raise _rejected(408, f"the body did not arrive within {BODY_TIMEOUT:g} seconds") from None


def read_kind(body: bytes) -> str:
    """Return the kind of request that `body` holds. Raises Rejection if it is no request."""
    try:
        request = from_json(body)
    except ValueError as error:
        raise _rejected(400, f"the body is not JSON: {error}") from error
    kind = request.get("kind") if isinstance(request, dict) else None
    if not isinstance(kind, str):
        raise _rejected(400, 'the body must look like {"kind": "...", "payload": {...}}')
    return kind


def check_accept(request: Request, handler: Handler) -> None:
    """Raise Rejection if the caller would not understand the answer that `handler` gives."""
    accepted = request.headers.get("accept", "*/*").lower()
    offered = EVENT_STREAM if handler.streams else JSON
    if offered in accepted or "*/*" in accepted or f"{offered.partition('/')[0]}/*" in accepted:
        return
    what = "a stream of events" if handler.streams else "one result"
    raise _rejected(406, f"{handler.kind!r} answers with {what}: send Accept: {offered}")


def problem_response(problem: Problem) -> Response:
    """`problem` as a response."""
    return Response(problem.body(), problem.status, problem.headers())


async def _read(request: Request, limit: int) -> bytes:
    announced = request.headers.get("content-length", "0")
    if announced.isdecimal() and int(announced) > limit:
        raise _too_large(limit)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> Rejection:
    return _rejected(413, f"the body is larger than this agent's limit of {limit} bytes")


def _rejected(status: int, detail: str) -> Rejection:
    return Rejection(Problem(status, InvalidRequest, detail))
