"""Bodies in JSON, read strictly: what JSON cannot say is not taken for something else."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel
from pydantic_core import to_json
from starlette.exceptions import HTTPException

from weft.errors import InvalidRequest
from weft.model.attribute_docs import describe_fields


class Body(BaseModel):
    """Base of every request and response body."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        json_schema_extra=describe_fields,
        # Payloads have no place in the text of an error.
        hide_input_in_errors=True,
    )


def strict_json(data: bytes) -> Any:
    """What `data` says in JSON. Raises InvalidRequest for all else: NaN, 1e999, a key that is there twice."""
    try:
        return json.loads(
            data.decode(), parse_constant=_no_number, parse_float=_finite, object_pairs_hook=_unique
        )
    except (ValueError, RecursionError) as error:
        why = str(error) if not isinstance(error, UnicodeDecodeError | RecursionError) else ""
        raise InvalidRequest(f"this is not JSON{': ' if why else ''}{why[:200]}") from error


class StrictRoute(APIRoute):
    """A route whose body is read by `strict_json`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """As FastAPI asks for it."""
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            _check_media_type(request)
            return await handler(_StrictRequest(request.scope, request.receive))

        return handle


def _check_media_type(request: Request) -> None:
    """Say what is wrong with a body that does not say that it is JSON, as curl's `-d` does not."""
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if has_body and not (given == "application/json" or given.endswith("+json")):
        raise HTTPException(415, "send the body with `Content-Type: application/json` (with curl: --json)")


class _StrictRequest(Request):
    async def json(self) -> Any:
        try:
            return strict_json(await self.body())
        except InvalidRequest as error:
            # FastAPI lets this one through, and takes any other for an error of its own.
            raise HTTPException(400, error.detail) from error


class JsonAnswer(Response):
    """A response in JSON, made of what needs no model."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Its body."""
        return to_json(content)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:32]} is larger than any number that can be kept")
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("an object has a name twice")
    return members
