"""Meshes in which agents work on tasks and take events, behind one interface: in memory, and real."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from functools import partial
from typing import Any, Protocol

from tests.processes import Core, Program

from weft import Agent, Mesh
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import MeshError, NotFound
from weft.model.agent import Instance
from weft.model.membership import DOOR_DIRECTORY, IDENTITY_VARIABLE
from weft.model.queue import QueueSpec
from weft.model.redelivery import Backoff
from weft.model.subtopic import parse_topic_pattern
from weft.model.topic import TopicSpec
from weft.sdk.app import AgentApp
from weft.sdk.membership import join_as_program
from weft.sdk.server import bind
from weft.sdk.transport import HttpTransport
from weft.testing import InMemoryMesh

LIMIT = 60.0
"""Seconds in which whatever is to happen has happened."""

_HOST = "127.0.0.1"
_QUICK = Backoff(initial=0.05, factor=1.0, longest=0.05)


def queue(**spec: Any) -> QueueSpec:
    """A queue whose retries don't take long."""
    return QueueSpec(**{"backoff": _QUICK, "visibility_timeout": 2.0, **spec})


def topic(**spec: Any) -> TopicSpec:
    """A topic whose retries don't take long."""
    return TopicSpec(**{"backoff": _QUICK, "visibility_timeout": 2.0, **spec})


class MessagingMesh(Protocol):
    """A running mesh without agents."""

    @property
    def client(self) -> Mesh:
        """A client of it that is no agent."""
        ...

    async def add(self, agent: Agent, instances: int = 1) -> list[str]:
        """Start instances, and wait until they get events; their names, `<type>.<id>`."""
        ...

    async def kill(self, name: str) -> None:
        """Have an instance vanish: no goodbyes."""
        ...

    async def drain(self, name: str) -> None:
        """Have an instance stop, as at SIGTERM, within its `drain_timeout`."""
        ...


class InMemory:
    """The mesh for users' tests."""

    def __init__(self, mesh: InMemoryMesh) -> None:
        self._mesh = mesh
        self.client = mesh.client
        self._instances: dict[str, Instance] = {}

    async def add(self, agent: Agent, instances: int = 1) -> list[str]:
        """As MessagingMesh says."""
        added = {f"{each.type}.{each.id}": each for each in self._mesh.add(agent, instances)}
        self._instances.update(added)
        return list(added)

    async def kill(self, name: str) -> None:
        """As MessagingMesh says."""
        self._mesh.kill(self._instances[name])

    async def drain(self, name: str) -> None:
        """As MessagingMesh says."""
        self._mesh.drain(self._instances[name])


class Real:
    """Agents in the test's process, each with the identity of a sidecar of its own."""

    def __init__(self, standing: StandingMessages, ends: AsyncExitStack) -> None:
        self._standing = standing
        self._ends = ends
        self._free = {name: list(places) for name, places in standing.places.items()}
        self._running: dict[str, tuple[AgentApp, Mesh]] = {}
        self.client = standing.client()

    async def add(self, agent: Agent, instances: int = 1) -> list[str]:
        """As MessagingMesh says."""
        return [await self._start(agent) for _ in range(instances)]

    async def kill(self, name: str) -> None:
        """Its connection ends; what it still tries to say leads nowhere."""
        app, mesh = self._running[name]
        await (await mesh.membership()).aclose()
        await app.aclose()

    async def drain(self, name: str) -> None:
        """As MessagingMesh says."""
        app, _ = self._running[name]
        app.drain()
        await app.drained(app.settings.drain_timeout)

    async def _start(self, agent: Agent) -> str:
        kind = agent.settings.type
        free = self._free.setdefault(kind, [])
        place = free.pop() if free else await self._standing.another_place(kind)
        mesh = place.mesh()
        app = agent.app(mesh)
        self._ends.push_async_callback(app.aclose)
        name = (await mesh.membership()).name
        self._running[name] = app, mesh
        app.start()
        for each in app.work.events:
            group = name.replace(".", "_") if each.every_instance else kind
            wanted = parse_topic_pattern(each.topic)
            for topic_name in self._standing.topics:
                if wanted.is_of(topic_name):
                    await self._standing.until_subscribed(topic_name, group)
        return name


class _Place:
    """A sidecar without a program, whose identity an agent in the test's process takes."""

    def __init__(self, sidecar: Program, proxy: str, identity: str) -> None:
        self._sidecar = sidecar
        self._proxy = proxy
        self._environ = {IDENTITY_VARIABLE: identity}

    def mesh(self) -> Mesh:
        """A client for one agent."""
        return _client(self._proxy, self._environ)

    async def joined(self) -> bool:
        """Whether an agent could join here."""
        assert self._sidecar.running, self._sidecar.log
        mesh = self.mesh()
        try:
            await mesh.membership()
        except MeshError:
            return False
        finally:
            await mesh.aclose()
        return True


def _client(proxy: str, environ: Mapping[str, str]) -> Mesh:
    """A client as it is in a program with that environment."""
    transport = HttpTransport(proxy)
    return Mesh(transport=transport, joining=partial(join_as_program, transport, environ))


class StandingMessages:
    """A mesh with queues and topics whose processes stay from one test to the next."""

    def __init__(
        self, core: Core, ends: ExitStack, queues: Mapping[str, QueueSpec], topics: Mapping[str, TopicSpec]
    ) -> None:
        """`ends` stops the sidecars, which are started when they are first needed."""
        self._core = core
        self._ends = ends
        self._queues = queues
        self.topics = topics
        self.places: dict[str, list[_Place]] = {}

    async def declare(self) -> None:
        """Declare everything, and wait until it is there."""
        manifest = "---\n".join(
            json.dumps(
                {
                    "apiVersion": "weft.dev/v1alpha1",
                    "kind": kind,
                    "metadata": {"name": name},
                    "spec": spec.model_dump(mode="json", by_alias=True),
                }
            )
            + "\n"
            for kind, specs in (("Queue", self._queues), ("Topic", self.topics))
            for name, spec in specs.items()
        )
        async with self._core.api() as api:
            await api.apply(manifest, "test.yaml")
            paths = [
                *(f"/v1/queue-status/{name}" for name in self._queues),
                *(f"/v1/topic-status/{name}" for name in self.topics),
            ]
            for path in paths:
                await until(partial(self._is_there, api, path), longest=0.2)

    @asynccontextmanager
    async def mesh(self) -> AsyncIterator[MessagingMesh]:
        """It, for one test: at its end no agents are left."""
        async with AsyncExitStack() as ends:
            mesh = Real(self, ends)
            ends.push_async_callback(mesh.client.aclose)
            yield mesh

    def client(self) -> Mesh:
        """A client with the door's identity."""
        environ = {IDENTITY_VARIABLE: str(self._core.directory / DOOR_DIRECTORY)}
        return _client(self._core.proxy_url, environ)

    async def another_place(self, kind: str) -> _Place:
        """A place for one more agent of a type."""
        name = f"{kind}-{secrets.token_hex(4)}"
        identity = str(self._core.directory / f"{name}-identity")
        # A connection is health enough, and nobody calls.
        listener = bind(_HOST, 0)
        listener.listen()
        self._ends.callback(listener.close)
        with reserve_port(_HOST) as reserved:
            proxy = f"http://{_HOST}:{reserved.port}"
        sidecar = self._core.sidecar(
            name,
            *("--type", kind, "--port", str(listener.getsockname()[1]), "--health-path="),
            *("--outbound-port", str(reserved.port), "--identity-dir", identity, "--drain-grace=0"),
        )
        self._ends.callback(sidecar.stop)
        sidecar.start()
        place = _Place(sidecar, proxy, identity)
        self.places.setdefault(kind, []).append(place)
        async with asyncio.timeout(LIMIT):
            await until(place.joined, longest=0.2)
        return place

    async def until_subscribed(self, topic_name: str, group: str) -> None:
        """Wait until a topic has a group."""
        async with self._core.api() as api:

            async def declared() -> bool:
                status = await api.ask("GET", f"/v1/topic-status/{topic_name}")
                return group in {each["name"] for each in status["groups"]}

            async with asyncio.timeout(LIMIT):
                await until(declared, longest=0.2)

    async def _is_there(self, api: Any, path: str) -> bool:
        try:
            await api.ask("GET", path)
        except NotFound:
            return False
        return True
