"""The A2A server of one running agent: a2a-sdk's routes over what the mesh keeps."""

from __future__ import annotations

from a2a.server.routes import create_jsonrpc_routes, create_rest_routes
from a2a.utils.errors import InvalidRequestError, MethodNotFoundError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Router

from weft.sdk.a2a.door import A2aDoor
from weft.sdk.a2a.edge import Edge, rest_error
from weft.sdk.a2a.handler import WeftRequestHandler
from weft.sdk.a2a.record import MAX_MESSAGES_BYTES
from weft.sdk.a2a.wire import PATH

MAX_BODY_BYTES = 3 * MAX_MESSAGES_BYTES
"""Of a request: what is larger makes no task, however its texts are escaped, and to read it takes seconds."""


def server(door: A2aDoor) -> Edge:
    """The server for an agent."""
    handler = WeftRequestHandler(door)
    routes = [
        *create_jsonrpc_routes(handler, PATH, enable_v0_3_compat=True),
        Mount(PATH, Router(create_rest_routes(handler, enable_v0_3_compat=True), redirect_slashes=False)),
    ]
    app = Starlette(routes=routes, exception_handlers={HTTPException: _no_such_path})
    app.router.redirect_slashes = False
    return Edge(app, max_body_bytes=min(door.agent.source.settings.max_body_bytes, MAX_BODY_BYTES))


async def _no_such_path(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    what = f"there is no {request.method} {request.url.path} here"
    if status == 404:
        return rest_error(MethodNotFoundError(what))
    return rest_error(InvalidRequestError(what), status)
