"""What the gateway's Envoy asks about calls that go past this process: may this caller call that agent?

It asks by headers alone (ext_authz over HTTP), with `/authorize` before the call's own path.
"""

from __future__ import annotations

import posixpath
import re
from urllib.parse import unquote_to_bytes

from fastapi import APIRouter, Request
from fastapi.responses import Response

from weft.errors import NotFound
from weft.gateway.conversation import CONTEXT_HEADER, outside_context
from weft.gateway.gate import take, too_often
from weft.gateway.parts import CurrentGateway
from weft.model.names import RESERVED_TYPES
from weft.problems.answers import problem_response

SUBMITTER_HEADER = "x-weft-submitter"
"""Goes with the call to the agent: who calls, as tasks would have it."""

_DIRECT = re.compile(rb"/authorize/v1/agents/([a-z0-9-]{1,63})(/.*)?", re.DOTALL)
_DELIVERIES = frozenset({"/tasks", "/events"})
"""Where an agent gets what its sidecar has for it, by POST: that is no caller's to send."""
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]

router = APIRouter(tags=["authorisation"])


@router.api_route("/authorize/{path:path}", methods=_METHODS, include_in_schema=False)
async def authorize(request: Request, gateway: CurrentGateway) -> Response:
    """200 if the call may go on, with what to add to its headers; else what to answer in its place."""
    # The path as it came, not decoded: it must be read as Envoy reads it.
    match = _DIRECT.fullmatch(request.scope["raw_path"])
    if match is None:
        raise NotFound("there is no such path at this gateway")
    _check_path(request.method, match[1].decode(), unquote_to_bytes(match[2] or b""))
    caller = await gateway.authentication.caller(request.scope["headers"], outside=True)
    quota = take(gateway, caller)
    told = {} if quota is None else quota.headers
    if quota is not None and not quota.granted:
        refusal = problem_response(too_often(quota))
        refusal.headers.update(told)
        return refusal
    gateway.rights.check_call(caller, match[1].decode())
    context = outside_context(caller, ", ".join(request.headers.getlist(CONTEXT_HEADER)))
    named = {CONTEXT_HEADER: context} if context else {}
    return Response(headers={SUBMITTER_HEADER: caller.submitter, **named, **told})


def _check_path(method: str, agent_type: str, path: bytes) -> None:
    """Raise NotFound for what is no agent (the control plane's API, the models), or not for callers."""
    if agent_type in RESERVED_TYPES:
        raise NotFound(f"there is no agent of type {agent_type!r} at this gateway")
    # As the most generous of servers reads it: without parameters, with dots and backslashes resolved.
    segments = re.sub(r";[^/]*", "", path.decode("latin-1").replace("\\", "/"))
    plain = posixpath.normpath(f"/{segments.lstrip('/')}").lower()
    if method == "POST" and plain in _DELIVERIES:
        raise NotFound(f"POST {plain} is for the mesh: submit tasks to queues, and publish events to topics")
