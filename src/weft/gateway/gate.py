"""Who gets as far as the endpoints: known callers, as often as they may. Before a body is read."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from weft.errors import MeshError, RateLimited
from weft.gateway.caller import Caller, Outsider
from weft.gateway.parts import Gateway
from weft.gateway.rate_limit import Quota
from weft.problems.answers import problem_response

GUARDED_PREFIX = "/v1/"
"""Below it nothing is open to everybody."""


class Gate:
    """ASGI middleware: finds out who calls, and counts it."""

    def __init__(self, app: ASGIApp, gateway: Gateway) -> None:
        self._app = app
        self._gateway = gateway

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or not scope["path"].startswith(GUARDED_PREFIX):
            await self._app(scope, receive, send)
            return
        try:
            caller = await self._gateway.authentication.caller(scope["headers"])
        except MeshError as error:
            await problem_response(error)(scope, receive, send)
            return
        scope.setdefault("state", {})["caller"] = caller
        quota = take(self._gateway, caller)
        telling = send if quota is None else _telling(quota, send)
        if quota is not None and not quota.granted:
            await problem_response(too_often(quota))(scope, receive, telling)
            return
        await self._app(scope, receive, telling)


def take(gateway: Gateway, caller: Caller) -> Quota | None:
    """Count one request of `caller`; None for callers from inside, whom the mesh's own limits bind."""
    return gateway.limits.take(caller.submitter, caller.rate) if isinstance(caller, Outsider) else None


def too_often(quota: Quota) -> RateLimited:
    """What to tell a caller who was not granted its request."""
    return RateLimited(
        f"more than {quota.rate.requests} requests in {quota.rate.per:g} s: wait {quota.wait:.1f} s",
        retry_after=quota.wait,
    )


def _telling(quota: Quota, send: Send) -> Send:
    async def tell(message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message).update(quota.headers)
        await send(message)

    return tell
