"""The gateway's API as one ASGI application."""

from __future__ import annotations

from fastapi import FastAPI, Security
from fastapi.security import APIKeyHeader, HTTPBearer

from weft.gateway import authorize, health, tasks, topics, webhook_secret
from weft.gateway.authentication import KEY_HEADER
from weft.gateway.body_limit import BodyLimit
from weft.gateway.gate import Gate
from weft.gateway.parts import Gateway, GatewayParts
from weft.problems.answers import answer_with_problems

# For the documentation: it is the Gate that looks at them.
_CREDENTIALS = [
    Security(APIKeyHeader(name=KEY_HEADER, auto_error=False)),
    Security(HTTPBearer(auto_error=False, description="An API key, or a JSON Web Token")),
]


def create_app(parts: GatewayParts) -> FastAPI:
    """The API over `parts`. Begin `parts.draining` before the server is stopped, so that long answers end."""
    app = FastAPI(title=f"Weft gateway {parts.name}", version="v1", redoc_url=None, redirect_slashes=False)
    gateway = app.state.gateway = Gateway(parts)
    answer_with_problems(app)
    # The last that is added is the first that is asked.
    app.add_middleware(BodyLimit, limit=lambda: parts.spec().max_body_bytes)
    app.add_middleware(Gate, gateway=gateway)
    for module in (tasks, topics, webhook_secret):
        app.include_router(module.router, dependencies=_CREDENTIALS)
    for module in (authorize, health):
        app.include_router(module.router)
    return app
