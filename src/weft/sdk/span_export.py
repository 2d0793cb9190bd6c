"""Where the spans of a program go: to an OTLP endpoint that the environment names, else to the mesh's."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Protocol

import aiohttp

from weft.errors import AgentFailed, Denied, InvalidRequest, MeshError, Unauthenticated
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.problem import read_error
from weft.sdk.transport import Answer, Call, HttpTransport, Transport
from weft.tracing.outlet import SpansRefused
from weft.tracing.settings import TRACES_PATH, TracingSettings

TIMEOUT = 10.0
"""Seconds that whoever takes spans has to answer."""

PROTOBUF = "application/x-protobuf"

_MAX_ERROR_BYTES = 4096
_TRIED_AGAIN = frozenset({408, 429, 502, 503, 504})
_NEVER = (InvalidRequest, Denied, Unauthenticated, AgentFailed)


class WayOut(Protocol):
    """Takes spans, as OTLP."""

    async def send(self, request: bytes) -> None:
        """Send one request. Raises SpansRefused, or what may pass."""
        ...

    async def aclose(self) -> None:
        """Let go of what is its own."""
        ...


def way_out(settings: TracingSettings, transport: Transport | None) -> WayOut | None:
    """To the endpoint of the environment; else to the mesh, if `transport` is a sidecar; else nowhere."""
    sidecar = transport if isinstance(transport, HttpTransport) else None
    if settings.endpoint and (sidecar is None or settings.endpoint != f"{sidecar.proxy}{TRACES_PATH}"):
        return OtlpEndpoint(settings.endpoint, settings.headers)
    return MeshIntake(sidecar) if sidecar is not None else None


class MeshIntake:
    """Sends spans to the control plane, by way of the sidecar."""

    def __init__(self, transport: Transport) -> None:
        """`transport` stays its owner's to close."""
        self._transport = transport

    async def send(self, request: bytes) -> None:
        """Send one request. Raises SpansRefused, or what may pass."""
        call = Call("POST", CONTROL_HOST, TRACES_PATH, {"content-type": PROTOBUF}, request)
        async with asyncio.timeout(TIMEOUT), self._transport.exchange(call) as answer:
            if answer.status < 300:
                return
            error = read_error(CONTROL_HOST, answer.status, answer.headers, await _beginning(answer))
            raise _refusal(error, answer.status)

    async def aclose(self) -> None:
        """Nothing."""


class OtlpEndpoint:
    """Sends spans to a URL, as OTLP over HTTP. Close it."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = {**headers, "content-type": PROTOBUF}
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: bytes) -> None:
        """As WayOut says."""
        if self._session is None:  # a session belongs to the event loop, which runs by now
            # The proxy of the environment is the sidecar: a collector is none of the mesh's.
            self._session = aiohttp.ClientSession(
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                trust_env=False,
            )
        async with self._session.post(
            self._url, data=request, headers=self._headers, allow_redirects=False
        ) as answer:
            if answer.status < 300:
                return
            detail = f"{self._url} answers {answer.status}"
        raise ConnectionError(detail) if answer.status in _TRIED_AGAIN else SpansRefused(detail)

    async def aclose(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()


def _refusal(error: MeshError, status: int) -> Exception:
    never = status not in _TRIED_AGAIN and isinstance(error, _NEVER)
    return SpansRefused(error.detail) if never else error


async def _beginning(answer: Answer) -> bytes:
    found = b""
    async for chunk in answer.chunks():
        found += chunk
        if len(found) > _MAX_ERROR_BYTES:
            break
    return found[:_MAX_ERROR_BYTES]
