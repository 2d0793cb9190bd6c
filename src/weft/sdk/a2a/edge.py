"""What stands before a2a-sdk: limits of size and time, and requests that it would not answer rightly."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from a2a.compat.v0_3.jsonrpc_adapter import JSONRPC03Adapter
from a2a.server.jsonrpc_models import JSONParseError, JSONRPCError
from a2a.server.request_handlers.response_helpers import build_error_response
from a2a.utils.error_handlers import build_rest_error_payload
from a2a.utils.errors import (
    A2A_ERROR_MAPPING,
    A2AError,
    InternalError,
    InvalidRequestError,
    MethodNotFoundError,
)
from pydantic_core import from_json
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.errors import Interrupted
from weft.sdk.a2a.values import MAX_VALUES, too_many_values
from weft.sdk.a2a.versions import V1, version_of, with_version
from weft.sdk.a2a.wire import PATH
from weft.sdk.disconnect import ClientGone, while_connected
from weft.sdk.request import BODY_TIMEOUT

logger = logging.getLogger("weft.agent")

MEDIA_TYPES = ("application/json", "application/a2a+json")

_LARGE = 413
_SLOW = 408
_NOT_JSON = 415


class _Refused(Exception):
    """Ends a request with an error."""

    def __init__(
        self, error: A2AError | JSONRPCError, *, status: int | None = None, request_id: Any = None
    ) -> None:
        """`status` is the HTTP status, if it is not the error's own."""
        super().__init__(error.message)
        self.error = error
        self.status = status
        self.request_id = request_id


class Edge:
    """An ASGI application around a2a-sdk's."""

    def __init__(self, app: ASGIApp, *, max_body_bytes: int) -> None:
        self._app = app
        self._limit = max_body_bytes
        self._calls: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        rpc = scope["path"] == PATH
        try:
            body = await self._body(Request(scope, receive))
            scope = _checked_rpc(scope, body) if rpc else _checked_rest(scope, body)
            await self._pass_on(scope, body, receive, send)
        except _Refused as refused:
            await _answer(refused, rpc=rpc)(scope, receive, send)
        except (ClientGone, ClientDisconnect):
            logger.debug("a caller went away before its answer was ready")
        except Interrupted as error:
            logger.info("%s", error.detail)

    def break_off(self) -> None:
        """Cancel every request in flight."""
        for call in self._calls:
            call.cancel()

    async def _pass_on(self, scope: Scope, body: bytes, receive: Receive, send: Send) -> None:
        call = asyncio.ensure_future(self._app(scope, _replay(body), send))
        self._calls.add(call)
        try:
            await while_connected(receive, call)
        finally:
            self._calls.discard(call)

    async def _body(self, request: Request) -> bytes:
        try:
            async with asyncio.timeout(BODY_TIMEOUT):
                return await self._read(request)
        except TimeoutError:
            error = InvalidRequestError(f"the body did not arrive within {BODY_TIMEOUT:g} seconds")
            raise _Refused(error, status=_SLOW) from None

    async def _read(self, request: Request) -> bytes:
        announced = request.headers.get("content-length", "0")
        body = bytearray()
        too_large = announced.isdecimal() and int(announced) > self._limit
        if not too_large:
            async for chunk in request.stream():
                body += chunk
                if too_large := len(body) > self._limit:
                    break
        if too_large:
            error = InvalidRequestError(f"the body is larger than this agent's limit of {self._limit} bytes")
            raise _Refused(error, status=_LARGE)
        return bytes(body)


def _checked_rpc(scope: Scope, body: bytes) -> Scope:
    if scope["method"] != "POST":
        return scope
    _check_media_type(scope)
    request = _parsed(body, JSONParseError())
    if not isinstance(request, dict):
        raise _Refused(InvalidRequestError("a request is one JSON object; batches are not taken"))
    request_id = request.get("id")
    if isinstance(request_id, bool) or not isinstance(request_id, str | int):
        # One without an id wants no answer, and every operation here is asked for its answer.
        raise _Refused(InvalidRequestError("a request has an id: a text or a whole number"))
    method = request.get("method")
    if not isinstance(method, str):
        raise _Refused(InvalidRequestError("a request has a method"), request_id=request_id)
    if not isinstance(request.get("params", {}), dict):
        raise _Refused(InvalidRequestError("params are an object"), request_id=request_id)
    return _versioned(scope, method, request_id)


def _versioned(scope: Scope, method: str, request_id: Any) -> Scope:
    try:
        version = version_of(scope)
    except A2AError as error:
        raise _Refused(error, request_id=request_id) from None
    if version == V1 and method in JSONRPC03Adapter.METHOD_TO_MODEL:
        raise _Refused(MethodNotFoundError(f"{method!r} is a method of A2A 0.3"), request_id=request_id)
    return with_version(scope, version)


def _checked_rest(scope: Scope, body: bytes) -> Scope:
    if body:
        _check_media_type(scope)
        _parsed(body, InvalidRequestError("the body is not JSON"))
    try:
        return with_version(scope, version_of(scope))
    except A2AError as error:
        raise _Refused(error) from None


def _parsed(body: bytes, wrong: A2AError | JSONRPCError) -> Any:
    """The JSON in `body`; `wrong` is told if there is none."""
    try:
        parsed = from_json(body, allow_inf_nan=False)
    except ValueError:
        raise _Refused(wrong) from None
    if too_many_values(body, parsed):
        error = InvalidRequestError(
            f"the body has more than {MAX_VALUES} values: put what is large elsewhere and give its address"
        )
        raise _Refused(error, status=_LARGE)
    return parsed


def _check_media_type(scope: Scope) -> None:
    # Also what keeps a web page from calling an agent on this machine: a browser asks first before it sends
    # these types to another origin.
    said = Request(scope).headers.get("content-type", "").partition(";")[0].strip().lower()
    if said not in MEDIA_TYPES:
        error = InvalidRequestError(f"send Content-Type: {MEDIA_TYPES[0]}, not {said[:64] or 'none'!r}")
        raise _Refused(error, status=_NOT_JSON)


def _answer(refused: _Refused, *, rpc: bool) -> Response:
    if rpc:
        return JSONResponse(build_error_response(refused.request_id, refused.error), refused.status or 200)
    error = refused.error if isinstance(refused.error, A2AError) else InvalidRequestError()
    return rest_error(error, refused.status)


def rest_error(error: A2AError, status: int | None = None) -> Response:
    """An error as HTTP+JSON tells it; `status` if it is not the error's own."""
    mapping = A2A_ERROR_MAPPING.get(type(error), A2A_ERROR_MAPPING[InternalError])
    payload: dict[str, Any] = build_rest_error_payload(error)
    if status is not None:
        payload["error"]["code"] = status
    return JSONResponse(payload, status or mapping.http_code)


def _replay(body: bytes) -> Receive:
    """A `receive` that gives `body`, and then waits: who calls going away is looked after here."""
    unread = [body]

    async def replay() -> Message:
        if unread:
            return {"type": "http.request", "body": unread.pop(), "more_body": False}
        await asyncio.Event().wait()
        raise AssertionError("nobody sets the event")

    return replay
