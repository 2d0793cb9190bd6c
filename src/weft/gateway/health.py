"""Whether the process lives, whether it serves, and what it has counted."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from weft.errors import NotFound, Unavailable
from weft.gateway.authentication import CALLER_HEADER, DOOR_HEADER
from weft.gateway.parts import CurrentGateway
from weft.work.metrics import CONTENT_TYPE, METRICS_PATH, metrics_page

router = APIRouter(tags=["health"])


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process lives."""
    return {"status": "ok"}


@router.get("/ready")
async def ready(gateway: CurrentGateway) -> dict[str, str]:
    """Whether it serves: 503, with the reason, while it is about to stop or cannot reach the mesh's store."""
    if gateway.parts.draining.begun:
        raise Unavailable("this gateway is about to stop")
    if reason := gateway.parts.ready():
        raise Unavailable(reason)
    return {"status": "ok"}


@router.get(METRICS_PATH, include_in_schema=False)
async def metrics(gateway: CurrentGateway, request: Request) -> Response:
    """Figures of tasks, events and webhooks, for this machine only: what comes by way of an Envoy says so."""
    if CALLER_HEADER in request.headers or DOOR_HEADER in request.headers:
        raise NotFound(f"there is no {METRICS_PATH} here")
    return Response(metrics_page(gateway.parts.metrics), headers={"content-type": CONTENT_TYPE})
