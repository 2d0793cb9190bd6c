"""Where agents tell their sidecar how their tasks go: a small HTTP server on loopback.

| request | body | what |
|---|---|---|
| `POST {lease}/extend` | | the agent is still at it |
| `POST {lease}/progress` | `{"fraction": 0.5, "message": "..."}` | how far it is; extends, too |
| `POST {lease}/partial` | JSON | a part of the result; extends, too |
| `POST {lease}/complete` | JSON, or nothing | the result |
| `POST {lease}/fail` | `{"detail": "...", "retry": true}` | the attempt has failed |

`{lease}` is the URL that the task brought, which nobody can guess. Answers are 204, or problem details: 410
where the lease is gone, so that the agent stops.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from weft.errors import MeshError
from weft.events.json_format import parse_json
from weft.messaging.message import MAX_BODY_BYTES
from weft.sidecar.lease import Lease, LeaseGone, failure_in, progress_in
from weft.sidecar.local_server import LocalAnswer, LocalRequest, LocalServer
from weft.sidecar.settings import LOOPBACK

_PREFIX = "/leases/"
_TOKEN_BYTES = 24


class _NoSuchMethod(MeshError):
    code = "method-not-allowed"
    status = 405


class _NoSuchPath(MeshError):
    code = "not-found"
    status = 404


class LeaseServer:
    """Serves the leases that are open. Use it as an async context manager."""

    def __init__(self, host: str = LOOPBACK) -> None:
        """`host` is an address of loopback; the port is chosen when it is started."""
        self._host = host
        self._leases: dict[str, Lease] = {}
        self._port: int | None = None
        self._server = LocalServer("lease server", self._handle, max_body=MAX_BODY_BYTES)

    async def start(self) -> None:
        """Listen. Raises OSError where that is not possible."""
        self._port = await self._server.listen(self._host)

    async def aclose(self) -> None:
        """Listen no more, and cut all connections."""
        await self._server.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @contextmanager
    def opened(self, lease: Lease) -> Iterator[str]:
        """Serve a lease for the block; yields its URL."""
        token = secrets.token_urlsafe(_TOKEN_BYTES)
        self._leases[token] = lease
        try:
            yield f"http://{self.address}{_PREFIX}{token}"
        finally:
            del self._leases[token]
            lease.end()

    @property
    def address(self) -> str:
        """Where it listens, `host:port`. Raises RuntimeError unless it was started."""
        if self._port is None:
            raise RuntimeError("the lease server has not been started")
        return f"[{self._host}]:{self._port}" if ":" in self._host else f"{self._host}:{self._port}"

    async def _handle(self, request: LocalRequest) -> LocalAnswer:
        """Do what is asked for. Raises MeshError."""
        token, slash, action = request.path.removeprefix(_PREFIX).partition("/")
        if not request.path.startswith(_PREFIX) or not slash or action not in _ACTIONS:
            raise _NoSuchPath(f"there is nothing here; a lease takes POST at {', '.join(_ACTIONS)}")
        if request.method != "POST":
            raise _NoSuchMethod("a lease takes POST")
        lease = self._leases.get(token)
        if lease is None:
            raise LeaseGone("the lease is gone: stop working on the task")
        await _ACTIONS[action](lease, request.body)
        return LocalAnswer()


async def _extend(lease: Lease, _: bytes) -> None:
    lease.extend()


async def _progress(lease: Lease, body: bytes) -> None:
    await lease.progress(*progress_in(_document(body)))


async def _partial(lease: Lease, body: bytes) -> None:
    await lease.partial(_document(body))


async def _complete(lease: Lease, body: bytes) -> None:
    lease.complete(_document(body) if body else None)


async def _fail(lease: Lease, body: bytes) -> None:
    detail, retry = failure_in(_document(body) if body else {})
    lease.fail(detail, retry=retry)


_ACTIONS = {
    "extend": _extend,
    "progress": _progress,
    "partial": _partial,
    "complete": _complete,
    "fail": _fail,
}


def _document(body: bytes) -> Any:
    return parse_json(body, "the body")
