"""Models of a mesh in memory: those of a provider that runs beside the tests."""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from weft.errors import Interrupted, InvalidRequest, MeshError, NotFound
from weft.model.llm_wire import LLM_HOST
from weft.model.names import MESH_DOMAIN
from weft.sdk.disconnect import ClientGone, while_connected
from weft.sdk.problem import Problem
from weft.sdk.request import problem_response
from weft.sdk.transport import Call, HttpTransport

MODELS_HOST: Final = f"{LLM_HOST}.{MESH_DOMAIN}"

_PREFIX = "/v1"
_KEPT = ("content-type", "retry-after")
"""Headers of an answer that are passed on."""


class Models:
    """An ASGI application that answers at `llm.mesh` as the provider at a URL does."""

    def __init__(self, url: str) -> None:
        """`url` goes up to and with `/v1`. Raises InvalidRequest if it is none."""
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.netloc:
            raise InvalidRequest(f"models are at a URL such as http://127.0.0.1:9400/v1, not {url!r}")
        self._path = parts.path.rstrip("/")
        self._transport = HttpTransport(f"http://{parts.netloc}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            call = await self._call(request)
            work = asyncio.create_task(self._pass_on(call, send), name="call to a model")
            with suppress(ClientGone):
                await while_connected(receive, work)
        except MeshError as error:
            await problem_response(Problem.of(error))(scope, receive, send)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._transport.aclose()

    async def _call(self, request: Request) -> Call:
        path = request.url.path
        if not path.startswith(f"{_PREFIX}/"):
            raise NotFound(f"models are at {_PREFIX}, not at {path}")
        headers = {
            name: value for name, value in request.headers.items() if name not in {"host", "content-length"}
        }
        target = self._path + path.removeprefix(_PREFIX)
        return Call(request.method, MODELS_HOST, target, headers, await request.body())

    async def _pass_on(self, call: Call, send: Send) -> None:
        async with self._transport.exchange(call) as answer:
            kept = [
                (name.encode(), answer.headers[name].encode()) for name in _KEPT if name in answer.headers
            ]
            await send({"type": "http.response.start", "status": answer.status, "headers": kept})
            try:
                async with aclosing(answer.chunks()) as chunks:
                    async for chunk in chunks:
                        await send({"type": "http.response.body", "body": chunk, "more_body": True})
            except Interrupted as error:  # too late for another answer: the caller's connection breaks, too
                raise ConnectionResetError("the provider broke off its answer") from error
        await send({"type": "http.response.body"})
