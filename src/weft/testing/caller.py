"""What mutual TLS does in a real mesh: the callee learns for certain who calls."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.model.spiffe import SpiffeId
from weft.sdk.wire import CALLER_HEADER


def as_caller(app: ASGIApp, caller: SpiffeId) -> ASGIApp:
    """`app` as `caller` reaches it: whatever a request says of its caller, `app` is told this one."""

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": list(scope["headers"])}
            MutableHeaders(scope=scope)[CALLER_HEADER] = str(caller)
        await app(scope, receive, send)

    return called
