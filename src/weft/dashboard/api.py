"""Asking the control plane's API, in this process, as the viewer: by HTTP, with the viewer's own token."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import httpx
from starlette.types import ASGIApp

from weft.dashboard.viewer import Viewer
from weft.errors import (
    Conflict,
    Denied,
    InvalidRequest,
    MeshError,
    NotFound,
    TimedOut,
    Unauthenticated,
    Unavailable,
)
from weft.model.operator import Scope

TIMEOUT = 15.0
"""Seconds the API has to answer."""

MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_DETAIL = 500
"""Characters of an error's text that are shown."""

SESSION_PATH = "/v1/dashboard/session"

_ERRORS: dict[int, type[MeshError]] = {
    400: InvalidRequest,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    422: InvalidRequest,
    503: Unavailable,
    504: TimedOut,
}
_SERVED_AT = "https://control"  # never looked up: there is no network between the two


class Api:
    """The API that `app` serves."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def viewer(self, token: str, address: str) -> Viewer:
        """Who holds `token`. Raises Unauthenticated, Unavailable."""
        answer = await self._ask("GET", SESSION_PATH, token, address)
        return Viewer(token, str(answer["name"]), Scope(answer["scope"]), str(answer["mesh"]), address)

    async def ask(self, viewer: Viewer, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """What the API answers, as JSON types; None if nothing. Raises the MeshError that it answers with."""
        return await self._ask(method, path, viewer.token, viewer.address, body)

    async def _ask(
        self, method: str, path: str, token: str, address: str, body: Mapping[str, Any] | None = None
    ) -> Any:
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=False, client=(address, 0))
        headers = {"authorization": f"Bearer {token}"}
        try:
            async with (
                asyncio.timeout(TIMEOUT),
                httpx.AsyncClient(
                    transport=transport, base_url=_SERVED_AT, headers=headers, trust_env=False
                ) as http,
            ):
                response = await http.request(method, path, json=body)
        except TimeoutError as error:
            raise Unavailable(f"the control plane did not answer within {TIMEOUT:g} s") from error
        except (httpx.HTTPError, UnicodeEncodeError) as error:
            raise InvalidRequest("this cannot be asked of the control plane") from error
        return _answer(response)


def _answer(response: httpx.Response) -> Any:
    if len(response.content) > MAX_ANSWER_BYTES:
        raise Unavailable(f"the control plane answers with more than {MAX_ANSWER_BYTES} bytes")
    if response.is_error:
        raise _error(response)
    try:
        return response.json() if response.content else None
    except ValueError as error:
        raise Unavailable("the control plane's answer is not JSON") from error


def _error(response: httpx.Response) -> MeshError:
    try:
        detail = str(response.json()["detail"])[:MAX_DETAIL]
    except (ValueError, KeyError, TypeError):
        detail = f"the control plane answered {response.status_code}"
    return _ERRORS.get(response.status_code, MeshError)(detail)
