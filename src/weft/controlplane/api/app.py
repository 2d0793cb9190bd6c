"""The API as one ASGI application."""

from __future__ import annotations

from fastapi import FastAPI, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from starlette.middleware.base import RequestResponseEndpoint

from weft.controlplane.api import (
    agents,
    audit,
    call_trees,
    can,
    cards,
    contexts,
    dashboard,
    destinations,
    drains,
    gateways,
    identity,
    llm,
    llm_usage,
    message_keys,
    messaging,
    prometheus,
    queues,
    reach,
    resources,
    sidecars,
    tasks,
    telemetry,
    tokens,
    tools,
    topics,
    traces,
    traffic,
)
from weft.controlplane.api.about import about_router
from weft.controlplane.api.access import Gate, admit
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.traces import TRACES_PATH
from weft.errors import InvalidRequest
from weft.model.manifest import MAX_MANIFEST_BYTES
from weft.model.mcp_wire import MCP_PATH
from weft.problems.answers import answer_with_problems, problem_response

MAX_BODY_BYTES = 4 * MAX_MANIFEST_BYTES
"""A larger request body is answered with 413; a manifest grows when it is written as a JSON string."""


_ENDPOINTS = (
    agents,
    resources,
    sidecars,
    tokens,
    audit,
    identity,
    can,
    reach,
    contexts,
    cards,
    tools,
    dashboard,
    prometheus,
    drains,
    traffic,
    destinations,
    traces,
    telemetry,
    messaging,
    queues,
    tasks,
    topics,
    gateways,
    llm,
    llm_usage,
    call_trees,
)
"""Modules with a `router`, in the order of the documentation."""


def create_api(context: ApiContext, metrics: CollectorRegistry) -> FastAPI:
    """The API over `context`; `metrics` is what `/metrics` shows (OpenMetrics)."""
    app = FastAPI(title="Weft control plane", version="v1", openapi_url=None)
    app.state.context = context
    answer_with_problems(app)
    app.middleware("http")(_limit_body)
    app.add_middleware(Gate, access=context.access)
    for each in _ENDPOINTS:
        admit(app, each.router)
    for router in message_keys.routers:
        admit(app, router)
    admit(app, about_router(metrics))
    return app


async def _limit_body(request: Request, call_next: RequestResponseEndpoint) -> Response:
    length = request.headers.get("content-length", "0")
    # Clients of MCP and OTLP are others' programs, which may send bodies in pieces: those endpoints count.
    if "transfer-encoding" in request.headers and request.url.path not in {MCP_PATH, TRACES_PATH}:
        return problem_response(InvalidRequest("send the body with a Content-Length"), 411)
    if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
        return problem_response(InvalidRequest(f"the body is larger than {MAX_BODY_BYTES} bytes"), 413)
    return await call_next(request)
