"""Whether the process lives, and whether it serves."""

from __future__ import annotations

from fastapi import APIRouter

from weft.errors import Unavailable
from weft.gateway.parts import CurrentGateway

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
