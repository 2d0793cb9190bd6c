"""How a request reaches the mesh: a narrow contract, and HTTP/1.1 to the sidecar."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Protocol

import aiohttp
from yarl import URL

from weft.errors import Interrupted, Unavailable


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request to a host of the mesh."""

    method: str
    host: str
    """As in `summarizer.mesh`."""
    target: str
    """Path and query."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case, without `host` and `content-length`."""
    body: bytes = b""


class Answer(Protocol):
    """The head of an HTTP response, whose body is still to come."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers; names are looked up in lower case."""
        ...

    def chunks(self) -> AsyncGenerator[bytes, None]:
        """The body, as it arrives. Raises Interrupted if the connection breaks before its end."""
        ...


class Transport(Protocol):
    """A way into the mesh."""

    def exchange(self, call: Call) -> AbstractAsyncContextManager[Answer]:
        """Send `call` and receive the head of its answer; leaving the context gives up on the rest.

        Raises Unavailable if the call certainly was not sent, Interrupted if it may have been.
        """
        ...

    async def aclose(self) -> None:
        """Let go of all connections."""
        ...


CONNECT_TIMEOUT = 5.0
"""Seconds to wait for the sidecar to accept a connection. It is on the same machine."""

MAX_CONNECTIONS = 1000
"""Calls and streams in flight at once; more wait for one to end."""

IDLE_SECONDS = 30.0
"""How long unused connections are kept: well below the hour after which Envoy closes them, so that no call is
sent into a connection that is just being closed."""

_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT)


class HttpTransport:
    """HTTP/1.1 to the sidecar's outbound listener.

    Calls go to the listener's own address and name their destination in `Host`, which is what Envoy sees of
    a proxied call too. There are no redirects, no cookies and no proxies from the environment (which, under a
    sidecar, would be the sidecar itself).
    """

    def __init__(self, proxy: str) -> None:
        """`proxy` is the listener's address, as in `http://127.0.0.1:15001`."""
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    @property
    def proxy(self) -> str:
        """The listener's address, an HTTP proxy for what is elsewhere too."""
        return self._proxy

    @asynccontextmanager
    async def exchange(self, call: Call) -> AsyncIterator[Answer]:
        """Send `call` and receive the head of its answer, as Transport says."""
        response = await self._send(call)
        try:
            yield _HttpAnswer(call.host, response)
        finally:
            response.close() if not response.content.at_eof() else response.release()

    async def aclose(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def _send(self, call: Call) -> aiohttp.ClientResponse:
        if self._session is None:  # a session belongs to the event loop, which runs by now
            self._session = _session()
        try:
            return await self._session.request(
                call.method,
                URL(self._proxy + call.target, encoded=True),
                headers={"host": call.host, **call.headers},
                data=call.body,
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unavailable(
                f"the sidecar at {self._proxy} does not take connections ({error}): is it still running?"
            ) from error
        except aiohttp.ClientError as error:
            raise _interrupted(call.host, error) from error


class _HttpAnswer:
    def __init__(self, host: str, response: aiohttp.ClientResponse) -> None:
        self._host = host
        self._content = response.content
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        try:
            async for chunk in self._content.iter_any():
                yield chunk
        except aiohttp.ClientError as error:
            raise _interrupted(self._host, error) from error


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=MAX_CONNECTIONS, keepalive_timeout=IDLE_SECONDS),
        cookie_jar=aiohttp.DummyCookieJar(),
        auto_decompress=False,
        trust_env=False,
        timeout=_TIMEOUT,
        skip_auto_headers=("user-agent", "accept-encoding"),
    )


def _interrupted(whom: str, error: aiohttp.ClientError) -> Interrupted:
    reason = str(error) or type(error).__name__
    return Interrupted(f"the call to {whom} broke midway ({reason}): it may or may not have been processed")
