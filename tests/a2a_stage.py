"""Instances of one agent, each at an address of its own, whose tasks are kept in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import httpx
from starlette.types import Receive, Scope, Send

from tests.a2a_clients import LIMIT
from tests.server_process import HOST
from weft import Agent, Mesh
from weft.aio.poll import until
from weft.model.spiffe import agent_id
from weft.sdk.app import AgentApp
from weft.sdk.server import bind, serving_http
from weft.testing.asgi import AsgiTransport
from weft.testing.control import control_app
from weft.testing.members import Members
from weft.testing.messages import Connection, Messages

CALLER = "spiffe://weft.local/agent/reader/reader-1"
ANOTHER = "spiffe://weft.local/agent/thief/thief-1"


@dataclass(frozen=True)
class Actor:
    """A running instance."""

    url: str
    app: AgentApp
    connection: Connection

    async def die(self) -> None:
        """End it as SIGKILL does."""
        self.connection.cut()
        await self.app.aclose()


@dataclass(frozen=True)
class Stage:
    """All of it."""

    actors: list[Actor]
    http: httpx.AsyncClient
    """As a caller who is CALLER."""

    @property
    def url(self) -> str:
        """The first one's address."""
        return self.actors[0].url


@asynccontextmanager
async def stage(agent: Agent, instances: int = 1, *, working: int | None = None) -> AsyncIterator[Stage]:
    """So many instances, of which `working` (default: all) work on tasks, and the others only serve."""
    messages = Messages(None, None)
    messages.have_inbox(agent.settings.type)
    async with AsyncExitStack() as ends:
        ends.push_async_callback(messages.aclose)
        actors = []
        for number in range(1, instances + 1):
            identity = agent_id("weft.local", agent.settings.type, f"{agent.settings.type}-{number}")
            connection = messages.member(identity)
            mesh = Mesh(transport=AsgiTransport(control_app(Members())), joining=connection.join)
            app = agent.app(mesh)
            ends.push_async_callback(app.aclose)
            listener = bind(HOST, 0)
            await ends.enter_async_context(serving_http(_Unstarted(app), listener))
            actors.append(Actor(f"http://{HOST}:{listener.getsockname()[1]}", app, connection))
            if working is None or number <= working:
                app.start()
        headers = {"x-weft-caller": CALLER}
        http = await ends.enter_async_context(httpx.AsyncClient(timeout=LIMIT, headers=headers))
        yield Stage(actors, http)


class _Unstarted:
    """An app without its lifespan, so that it works when the test says so."""

    def __init__(self, app: AgentApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._app(scope, receive, send)


async def becomes(condition: asyncio.Event) -> None:
    """Wait for it, not for ever."""
    async with asyncio.timeout(LIMIT):
        await condition.wait()


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it is true, not for ever."""
    async with asyncio.timeout(LIMIT):
        await until(holds, longest=0.05)
