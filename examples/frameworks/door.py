"""What puts any function into the mesh: `POST /rpc` and `GET /health` at the port that `weft run` gives."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route


def serve(answer: Callable[[str], Awaitable[str]]) -> None:
    """Answer `{"kind": "ask", "payload": {"text": ...}}` with what `answer` makes of the text."""

    async def rpc(request: Request) -> JSONResponse:
        return JSONResponse({"result": await answer((await request.json())["payload"]["text"])})

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "healthy"})

    routes = [Route("/rpc", rpc, methods=["POST"]), Route("/health", health)]
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=int(os.environ["PORT"]), log_level="warning")


async def count_words(text: str) -> int:
    """Count the words of a text. Another agent does it, which is found by its name."""
    async with httpx.AsyncClient() as client:
        answer = await client.post(
            "http://counter.mesh/rpc", json={"kind": "count", "payload": {"text": text}}
        )
        return int(answer.raise_for_status().json()["result"])
