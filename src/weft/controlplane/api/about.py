"""The replica and its API over HTTP: health, metrics, documentation."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from prometheus_client import CollectorRegistry

from weft.controlplane.api.access import requires
from weft.controlplane.api.metrics import metrics_response
from weft.model.operator import Scope

_READERS = [Depends(requires(Scope.VIEWER))]


def about_router(metrics: CollectorRegistry) -> APIRouter:
    """The endpoints; `metrics` is what `/metrics` shows."""
    router = APIRouter(tags=["health"])

    @router.get("/livez")
    async def livez() -> dict[str, str]:
        """Whether the process lives."""
        return {"status": "ok"}

    @router.get("/readyz")
    async def readyz() -> dict[str, str]:
        """Whether this replica serves: it listens only once it knows what is declared and running."""
        return {"status": "ok"}

    @router.get("/metrics", dependencies=_READERS)
    async def show_metrics() -> Response:
        """This replica's metrics (OpenMetrics)."""
        return metrics_response(metrics)

    @router.get("/openapi.json", dependencies=_READERS, include_in_schema=False)
    async def openapi(request: Request) -> dict[str, Any]:
        """This API as an OpenAPI document."""
        schema: dict[str, Any] = request.app.openapi()
        return schema

    @router.get("/docs", dependencies=_READERS, include_in_schema=False)
    async def docs() -> HTMLResponse:
        """This API as a page."""
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Weft control plane")

    return router
