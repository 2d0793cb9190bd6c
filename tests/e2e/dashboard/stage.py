"""One mesh for the tests of all pages, whose content is known: what was sent is written down.

    async with dashboard_stage() as stage:
        stage.sent.calls[("planner", "summarizer")]      # what was sent, by caller and callee
        tab = await stage.open("/agents")                # a tab of an operator's browser, in the light theme
        await tab.seen("planner-1")                      # text that is visible, awaited

A page's module here (`agents.py`, `traffic.py`, ...) has `async def check(stage: Stage) -> None`, which
`tests/e2e/test_dashboard.py` runs. More load at any time: `await stage.load(...)`.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.e2e.dashboard.browser import Browser, Tab, browser
from tests.e2e.leftovers import scope
from tests.e2e.meshes import RunningMesh
from tests.e2e.messaging_mesh import acting_as, agent, document, ended, manifest

from weft import Mesh, MeshError
from weft.local.mesh import LocalMesh
from weft.local.messaging_control import MessagingApi
from weft.local.ports import free_ports
from weft.model.membership import DOOR_DIRECTORY, IDENTITY_VARIABLE
from weft.model.operator import Scope

HERE = Path(__file__).parent

CONVERSATIONS = ("trip-rome", "trip-oslo")

ORDERS_DONE, ORDERS_DEAD, NEWS = 6, 2, 5
"""Tasks that succeed, tasks that end as dead letters, events."""


def _agent(name: str, program: str = "cast.py", **spec: Any) -> str:
    return agent(name, program, **spec)


MANIFEST = manifest(
    _agent("planner", version="1.4.0", description="Plans trips."),
    _agent("summarizer", replicas=2, capabilities=["summarize"], version="2"),
    _agent("vault"),
    _agent("clerk"),
    document(
        "Agent",
        "clock",
        protocol="mcp",
        run={"command": [sys.executable, str(HERE.parents[2] / "examples/tools/clock_server.py")]},
    ),
    document("Queue", "orders", maxDeliveries=2, backoff={"initial": "100ms"}, description="What to do."),
    document("Topic", "news", description="What is new."),
    document(
        "AccessPolicy",
        "vault-is-closed",
        effect="deny",
        to=[{"type": "vault"}],
        **{"from": [{"type": "planner"}]},
    ),
)


@dataclass
class Sent:
    """What was sent so far, and what came of it."""

    calls: Counter[tuple[str, str]] = field(default_factory=Counter)
    """By caller and callee; the caller outside any agent is "operator/local"."""
    failed: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of these, those that ended with an error of the callee's."""
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Of these, those that were not allowed."""
    tools: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    tasks: list[str] = field(default_factory=list)
    """Ids of tasks that succeeded."""
    dead: list[str] = field(default_factory=list)
    """Ids of tasks that failed for good."""
    events: int = 0
    """Published to `news`."""
    messages: Counter[str] = field(default_factory=Counter)
    """Kept in a conversation, by its id."""


@dataclass
class Stage:
    """The mesh, its browser, and what was sent."""

    mesh: RunningMesh
    client: Mesh
    browser: Browser
    url: str
    """Of the dashboard, without a slash at its end."""
    tokens: dict[Scope, str]
    sent: Sent = field(default_factory=Sent)

    async def open(
        self, path: str, *, scope: Scope = Scope.OPERATOR, dark: bool = False, width: int = 1280
    ) -> Tab:
        """A tab with the page at `path` (`/agents`), signed in; one browser per scope, theme and width."""
        return await self.browser.open(self.url, path, self.tokens[scope], dark=dark, width=width)

    async def load(self, *, calls: int = 4, broken: int = 2, denied: int = 1) -> None:
        """Send some of everything, and wait for it."""
        for number in range(calls):
            context = CONVERSATIONS[number % len(CONVERSATIONS)]
            await self.plan(f"visit {number}", context, ask=number == 0, tool=number % 2 == 0)
        for number in range(broken):
            await self.plan(f"break {number}", CONVERSATIONS[0])
        for _ in range(denied):
            await self._peek()

    @asynccontextmanager
    async def busy(self) -> AsyncIterator[None]:
        """Within the context there are calls all the time, of which some fail and some are refused."""
        enough = asyncio.Event()

        async def go_on() -> None:
            while not enough.is_set():
                await self.plan("visit again", CONVERSATIONS[1], tool=True)
                await self.plan("break again", CONVERSATIONS[1])
                await self._peek()
                with suppress(TimeoutError):
                    async with asyncio.timeout(1):
                        await enough.wait()

        calls = asyncio.create_task(go_on())
        try:
            yield
        finally:
            enough.set()
            await calls

    async def plan(self, text: str, context: str, *, ask: bool = False, tool: bool = False) -> None:
        """One call of `planner`, in a conversation; it fails where the text has "break" in it."""
        sent, fails = self.sent, "break" in text
        way = [("operator/local", "planner"), ("planner", "summarizer")]
        sent.calls.update(way)
        sent.messages[context] += 1 if fails else 2
        try:
            await self.client.request(
                "planner",
                "plan",
                text=text,
                ask=ask,
                tool=tool,
                headers={"x-weft-context": context},
                timeout=60,
            )
        except MeshError:
            assert fails
            sent.failed.update(way)
            return
        assert not fails
        sent.tools["now"] += tool
        sent.models["gpt-4o-mini"] += ask

    async def _peek(self) -> None:
        self.sent.calls.update([("operator/local", "planner"), ("planner", "vault")])
        self.sent.failed["operator/local", "planner"] += 1
        self.sent.refused["planner", "vault"] += 1
        try:
            await self.client.request("planner", "peek")
        except MeshError:
            return
        raise AssertionError("planner reached the vault")

    async def work(self) -> None:
        """Tasks, of which some end as dead letters, and events."""
        api = MessagingApi(self.mesh.api)
        for number in range(ORDERS_DONE + ORDERS_DEAD):
            dead = number >= ORDERS_DONE
            payload = {"number": number, "dead": dead, "extra": {":x": "window.PWNED = 1"}}
            task = await self.client.submit("orders", payload)
            (self.sent.dead if dead else self.sent.tasks).append(task.id)
        for number in range(NEWS):
            await self.client.publish("news", {"number": number})
            self.sent.events += 1
        await asyncio.gather(*(ended(api, each) for each in [*self.sent.tasks, *self.sent.dead]))


@asynccontextmanager
async def dashboard_stage() -> AsyncIterator[Stage]:
    """The mesh, loaded, and a browser that looks at it."""
    async with browser() as tabs, _mesh() as mesh:
        tokens = {
            scope: str((await mesh.api.make_token(f"a-{scope}", scope, 3600.0))["token"]) for scope in Scope
        }
        environ = {
            "WEFT_PROXY": mesh.local.proxy_url,
            IDENTITY_VARIABLE: str(mesh.home / DOOR_DIRECTORY),
        }
        url = f"http://127.0.0.1:{mesh.local.ports.dashboard}/dashboard"
        async with acting_as(environ) as client:
            stage = Stage(mesh, client, tabs, url, tokens)
            await stage.load()
            await stage.work()
            yield stage


@asynccontextmanager
async def _mesh() -> AsyncIterator[RunningMesh]:
    with scope() as inside, TemporaryDirectory(prefix="wh-", dir="/tmp") as parent:
        home = Path(parent) / "mesh"
        environ = {
            name: value
            for name, value in inside.environ.items()
            if name not in {"HOLYSHEEP_API_KEY", "OPENAI_API_KEY"}  # no test asks real models, for money
        }
        local = LocalMesh(
            home,
            ports=free_ports(),
            manifest=MANIFEST,
            working_directory=HERE,
            environ=environ,
            default_models=True,
        )
        async with local:
            await local.wait_healthy(timeout=180)
            inside.note_ports()
            yield RunningMesh(local, home, inside)
            inside.note_ports()
        await inside.check_empty()
