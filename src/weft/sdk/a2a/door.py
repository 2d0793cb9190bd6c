"""An agent's way into A2A: its card, the work on its inbox, and the server, loaded when it is needed.

a2a-sdk costs memory and a second of work, which agents that nobody calls by A2A do without; nothing that this
module imports at its top needs it.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from weft.errors import MeshError, NotFound, Unavailable
from weft.sdk.a2a.book import TaskBook
from weft.sdk.a2a.card import CardSource, card
from weft.sdk.a2a.push import Pushes
from weft.sdk.a2a.turns import Call, Stream, Turns
from weft.sdk.a2a.wire import CARD_PATHS, PATH
from weft.sdk.admission import Admission
from weft.sdk.handler import Handler
from weft.sdk.membership import open_inbox
from weft.sdk.mesh import Mesh
from weft.sdk.problem import Problem, Rejection
from weft.sdk.request import problem_response
from weft.sdk.spans import HandlerSpans
from weft.sdk.wire import JSON
from weft.work.duties import Work
from weft.work.membership import Membership

logger = logging.getLogger("weft.agent")

A2A_PATHS = (*CARD_PATHS, PATH, f"{PATH}/{{rest:path}}")
"""What an agent serves for A2A, as Starlette routes say it."""

MAX_IN_FLIGHT = 1000
"""Requests by A2A at once, streams included. They wait for work, and are none: `concurrency` is for that."""


CARD_CACHING = "private, max-age=30"
"""How long a card may be kept by who read it: a restarted agent may be another one."""

GOODBYE = 5.0
"""Seconds that an instance which stops gives requests that wait, and push notifications."""


class _Server(Protocol):
    """What `app.server` makes."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...

    def break_off(self) -> None: ...


@dataclass(frozen=True, slots=True)
class A2aAgent:
    """What the server needs of an agent."""

    source: CardSource
    mesh: Mesh
    default: str | None
    """The kind of the handler that messages are for that name none."""

    @property
    def handlers(self) -> Mapping[str, Handler]:
        """By kind, which is the skill's id."""
        return self.source.handlers


class A2aDoor:
    """An ASGI application for A2A_PATHS. After `start`: `drain`, `drained`, then `aclose`."""

    def __init__(self, agent: A2aAgent, call: Call, stream: Stream, spans: HandlerSpans) -> None:
        """`call` and `stream` call handlers, and `spans` records that."""
        settings = agent.source.settings
        self._type = agent.mesh.own_type(settings.type)
        self.agent = agent
        self.admission = Admission(MAX_IN_FLIGHT)
        self.pushes = Pushes(self.book, lambda: agent.mesh.transport)
        inbox = self._type or settings.type
        turns = Turns(inbox, agent.handlers, call, stream, settings.concurrency, self.pushes.begin, spans)
        self.work = Work([turns.duty()], [], self._join)
        self._book: TaskBook | None = None
        self._one_opens = asyncio.Lock()
        self._app: _Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] in CARD_PATHS:
            await self._card(Request(scope, receive))(scope, receive, send)
            return
        try:
            with self.admission.slot():
                app = await self._loaded()
                await app(scope, receive, send)
        except Rejection as rejection:
            await problem_response(rejection.problem)(scope, receive, send)

    def start(self) -> None:
        """Begin to work on the inbox, in the background, if this agent has a place in a mesh."""
        if self._type is not None and self.agent.handlers:
            self.work.start()

    def drain(self) -> None:
        """Take no new requests and turns; those in hand go on."""
        self.admission.draining = True
        self.work.drain()

    async def drained(self, timeout: float) -> None:
        """Wait until nothing is in hand; after so many seconds turns are handed back to other instances."""
        now = asyncio.get_running_loop().time
        end = now() + timeout
        await self.work.drained(timeout)
        try:
            async with asyncio.timeout(min(max(0.0, end - now()), GOODBYE)):
                await self.admission.idle()
        except TimeoutError:
            self.break_off()  # they wait for what happens elsewhere, and may go on elsewhere
        await self.pushes.drained(min(max(1.0, end - now()), GOODBYE))

    def break_off(self) -> None:
        """Cancel every request in flight."""
        if self._app is not None:
            self._app.break_off()

    async def aclose(self) -> None:
        """Stop."""
        self.break_off()
        await self.work.aclose()
        await self.pushes.aclose()

    async def book(self) -> TaskBook:
        """The tasks of this agent's type. Raises Unavailable while it cannot be in its mesh."""
        if self._book is None:
            async with self._one_opens:
                if self._book is None:
                    membership = await self._join()
                    self._book = await TaskBook.open(membership, membership.name.partition(".")[0])
        return self._book

    async def _join(self) -> Membership:
        mesh = self.agent.mesh
        if self._type is None:
            raise Unavailable(
                "this agent is in no mesh, where its tasks would be kept: start it with "
                "`weft run -- COMMAND`, or declare it as an Agent that `weft up` runs"
            )
        try:
            await open_inbox(mesh.transport, self._type)
        except MeshError as error:
            raise Unavailable(f"the mesh gives this agent no inbox yet: {error.detail}") from error
        return await mesh.membership()

    def _card(self, request: Request) -> Response:
        if not self.agent.handlers:
            detail = f"agent {self.agent.source.settings.type!r} has no handlers, so it has no A2A card"
            return problem_response(Problem(404, NotFound, detail))
        if request.method not in {"GET", "HEAD"}:
            return Response(status_code=405, headers={"allow": "GET, HEAD"})
        base = f"{request.url.scheme}://{request.url.netloc}"
        body = to_json(card(self.agent.source, base))
        headers = {"etag": f'"{hashlib.sha256(body).hexdigest()[:32]}"', "cache-control": CARD_CACHING}
        if headers["etag"] in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type=JSON)

    async def _loaded(self) -> _Server:
        if self._app is None:
            # In a thread: what else the agent does at the moment goes on.
            module: Any = await asyncio.to_thread(importlib.import_module, "weft.sdk.a2a.app")
            if self._app is None:
                self._app = module.server(self)
        return self._app
