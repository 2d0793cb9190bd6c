"""The gateway's API as one ASGI application."""

from __future__ import annotations

from fastapi import FastAPI

from weft.gateway import authorize, health, tasks, topics, webhook_secret
from weft.gateway.body_limit import BodyLimit
from weft.gateway.gate import Gate
from weft.gateway.parts import Gateway, GatewayParts
from weft.gateway.problems import answer_with_problems


def create_app(parts: GatewayParts) -> FastAPI:
    """The API over `parts`. Begin `parts.draining` before the server is stopped, so that long answers end."""
    app = FastAPI(title=f"Weft gateway {parts.name}", version="v1", redoc_url=None)
    gateway = app.state.gateway = Gateway(parts)
    answer_with_problems(app)
    # The last that is added is the first that is asked.
    app.add_middleware(BodyLimit, limit=lambda: parts.spec().max_body_bytes)
    app.add_middleware(Gate, gateway=gateway)
    for module in (tasks, topics, webhook_secret, authorize, health):
        app.include_router(module.router)
    return app
