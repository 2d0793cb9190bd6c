"""Errors as RFC 9457 problem details: what the control plane's API and gateways answer alike."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from weft.errors import (
    PROBLEM_MEDIA_TYPE,
    Denied,
    FieldProblem,
    InvalidRequest,
    InvalidResource,
    MeshError,
    NotFound,
    TooMany,
    Unauthenticated,
    Unavailable,
)

MAX_PROBLEMS = 32
"""Wrong fields that an answer names: a request can have more of them than an answer should be long."""

MAX_TEXT = 256
"""Characters of a caller's own, such as the name of a field, that an answer repeats."""

_RETRY_UNAVAILABLE = 1  # seconds: a store that is elected anew, another replica, is there soon


def answer_with_problems(app: FastAPI) -> None:
    """Make `app` answer every error as problem details, with the code in `x-weft-error` too."""
    app.add_exception_handler(MeshError, _mesh_error)
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _fault)


def problem_response(error: MeshError, status: int | None = None) -> JSONResponse:
    """`error` as a response, with `status` in place of its own if given."""
    problem: dict[str, Any] = error.problem()
    if status is not None:
        problem["status"] = status
    headers = {"x-weft-error": error.code}
    if isinstance(error, Unauthenticated | Denied):
        headers["www-authenticate"] = "Bearer"
    if isinstance(error, TooMany):
        headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
    elif isinstance(error, Unavailable):
        headers["retry-after"] = str(_RETRY_UNAVAILABLE)
    return JSONResponse(
        problem, status_code=problem["status"], headers=headers, media_type=PROBLEM_MEDIA_TYPE
    )


async def _mesh_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MeshError)  # noqa: S101 -- what the handler is registered for
    return problem_response(error)


async def _invalid_request(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 -- what the handler is registered for
    found = error.errors()
    problems = [
        FieldProblem(each["msg"][:MAX_TEXT], field=_field(each["loc"])) for each in found[:MAX_PROBLEMS]
    ]
    if len(found) > MAX_PROBLEMS:
        problems.append(FieldProblem(f"{len(found) - MAX_PROBLEMS} more fields are wrong"))
    return problem_response(InvalidResource(problems))


def _field(location: Sequence[Any]) -> str:
    return ".".join(str(part)[:MAX_TEXT] for part in location)[:MAX_TEXT]


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 -- what the handler is registered for
    if error.status_code == 404:
        return problem_response(NotFound(f"there is no {_path(request)}; see /docs for what there is"))
    response = problem_response(
        InvalidRequest(f"{request.method} {_path(request)}: {error.detail}"), error.status_code
    )
    response.headers.update(error.headers or {})
    return response


def _path(request: Request) -> str:
    return request.url.path[:MAX_TEXT]


async def _fault(_request: Request, _error: Exception) -> JSONResponse:
    # The server logs it with its traceback, which is nothing for callers.
    return problem_response(MeshError("this service failed at the request; its log says why"))
