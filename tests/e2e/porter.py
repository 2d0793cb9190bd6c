"""A program that knows nothing of Weft, and does what it is given as HTTP: `python porter.py JOURNAL STATE`.

`POST /tasks` does what a task says: `gate`, a file without which it does not answer; `status`, how it does.
`POST /events` takes an event; `POST /rpc` answers with the request's headers, or, where a stream is wanted,
with two events, the second once the file `go` is in STATE. It is healthy unless a file `sick-<instance>` is
there. The journal gets `task <number> <instance>` at the beginning of each task, `done <number> <instance>`
at its end, and `event <type> <data> <instance>`.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from aiohttp import web

JOURNAL = sys.argv[1]
STATE = Path(sys.argv[2])
INSTANCE = os.environ["WEFT_INSTANCE"]


def write_down(*words: object) -> None:
    """One line in one write: whoever dies leaves a whole line, or none."""
    descriptor = os.open(JOURNAL, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(descriptor, f"{' '.join(map(str, words))}\n".encode())
    os.close(descriptor)


async def health(_request: web.Request) -> web.Response:
    """Say how we are."""
    return web.Response(status=503 if _is_there(STATE / f"sick-{INSTANCE}") else 200)


async def task(request: web.Request) -> web.Response:
    """Do a task."""
    wanted: dict[str, Any] = await request.json()
    number = wanted["number"]
    write_down("task", number, INSTANCE)
    if "gate" in wanted:
        await _appears(Path(wanted["gate"]))
    write_down("done", number, INSTANCE)
    return web.json_response({"number": number, "by": INSTANCE}, status=wanted.get("status", 200))


async def event(request: web.Request) -> web.Response:
    """Take an event."""
    write_down("event", os.environ["WEFT_TYPE"], (await request.text()).replace(" ", ""), INSTANCE)
    return web.Response(status=204)


async def rpc(request: web.Request) -> web.StreamResponse:
    """Answer at once, or bit by bit."""
    headers = {name.lower(): value for name, value in request.headers.items()}
    if "text/event-stream" not in headers.get("accept", ""):
        return web.json_response({"result": headers})
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    await answer.write(b'data: "first"\n\n')
    await _appears(STATE / "go")
    await answer.write(b'data: "second"\n\n')
    return answer


def _is_there(file: Path) -> bool:
    return os.access(file, os.F_OK)


async def _appears(file: Path) -> None:
    while not _is_there(file):  # noqa: ASYNC110 -- nobody sends word of a file
        await asyncio.sleep(0.05)


def program() -> web.Application:
    """What it serves."""
    app = web.Application()
    app.add_routes(
        [
            web.get("/health", health),
            web.post("/tasks", task),
            web.post("/events", event),
            web.post("/rpc", rpc),
        ]
    )
    return app


if __name__ == "__main__":
    web.run_app(program(), host="127.0.0.1", port=int(os.environ["PORT"]), print=None, shutdown_timeout=15)
