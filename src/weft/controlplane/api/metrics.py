"""The metrics of this replica, over HTTP: in the API, and for Prometheus at a port of their own."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.responses import Response
from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest


def metrics_response(metrics: CollectorRegistry) -> Response:
    """What `metrics` hold (OpenMetrics)."""
    return Response(generate_latest(metrics), media_type=CONTENT_TYPE_LATEST)  # type: ignore[no-untyped-call]


def metrics_app(metrics: CollectorRegistry) -> FastAPI:
    """`/metrics` and `/livez` for whoever reaches them, and nothing else."""
    app = FastAPI(openapi_url=None)

    @app.get("/livez")
    async def livez() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/metrics")
    async def show() -> Response:
        return metrics_response(metrics)

    return app
