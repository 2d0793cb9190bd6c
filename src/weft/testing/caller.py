"""What a caller's sidecar does in a real mesh: the callee learns for certain who calls, and by which way."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from weft.errors import LoopDetected
from weft.model.hops import HOPS_HEADER, parse_hops, with_hop
from weft.model.spiffe import SpiffeId
from weft.sdk.destination import CONTROL_HOST
from weft.sdk.problem import Problem
from weft.sdk.request import problem_response
from weft.sdk.wire import CALLER_HEADER


def as_caller(app: ASGIApp, caller: SpiffeId) -> ASGIApp:
    """`app` as `caller` reaches it: whatever a request says of its caller, `app` is told this one."""
    own = caller.agent_type

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": list(scope["headers"])}
            headers = MutableHeaders(scope=scope)
            headers[CALLER_HEADER] = str(caller)
            if own is not None and headers.get("host") != CONTROL_HOST:
                try:
                    headers[HOPS_HEADER] = with_hop(parse_hops(headers.get(HOPS_HEADER, "")), own)
                except LoopDetected as error:
                    await problem_response(Problem.of(error))(scope, receive, send)
                    return
        await app(scope, receive, send)

    return called
