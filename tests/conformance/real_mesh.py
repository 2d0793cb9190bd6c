"""A mesh of real processes behind the interface of `meshes`; only the agents run in the test's own."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import httpx
from tests.conformance.meshes import Crew, MeshUnderTest
from tests.processes import Core, Program

from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.errors import NoHealthyAgent
from weft.model.agent import Instance, Status
from weft.sdk.agent import Agent
from weft.sdk.app import AgentApp
from weft.sdk.mesh import Mesh
from weft.sdk.server import bind, serving

_LIMIT = 60.0
_HOST = "127.0.0.1"


@dataclass(frozen=True)
class _Member:
    """One instance: the agent, in this process, and its sidecar."""

    name: str
    agent: Agent
    app: AgentApp
    sidecar: Program
    proxy: str

    @property
    def host(self) -> str:
        return f"{self.name}.{self.agent.settings.type}.mesh"


class _ThroughEnvoy:
    """What happens takes a moment until everybody knows."""

    def __init__(self, client: Mesh, door: str, members: list[_Member]) -> None:
        self.client = client
        self._door = door
        self._members = {each.name: each for each in members}

    async def kill(self, instance: Instance) -> None:
        self._members[instance.id].sidecar.kill_family()
        await _eventually(partial(self._is_gone, instance))

    async def drain(self, instance: Instance) -> None:
        member = self._members[instance.id]
        member.app.drain()
        member.sidecar.send(signal.SIGTERM)
        await _eventually(partial(self._is_draining, instance))
        async with _caller(self._door) as http:
            await _eventually(partial(_answers, http, member.host, NoHealthyAgent.status))

    async def _is_gone(self, instance: Instance) -> bool:
        return instance.id not in {each.id for each in await self.client.discover(status=None)}

    async def _is_draining(self, instance: Instance) -> bool:
        return instance.id in {each.id for each in await self.client.discover(status=Status.DRAINING)}


@asynccontextmanager
async def through_envoy(core: Core, crew: Crew) -> AsyncIterator[MeshUnderTest]:
    """Every instance of `crew` beside a real sidecar, healthy, and known to the door and to each other."""
    async with AsyncExitStack() as ends:
        members = [
            await _join(core, agent, ends) for agent, instances in crew.items() for _ in range(instances)
        ]
        yield await _complete(core, members, ends)


class StandingMesh:
    """A mesh whose sidecars stay from one test to the next; only the agents beside them are others each time.

    For crews that are always the same, and of which nobody is killed or drained.
    """

    def __init__(self, core: Core, ends: ExitStack) -> None:
        """`ends` stops the sidecars, which are started when they are first needed."""
        self._core = core
        self._ends = ends
        self._places: defaultdict[str, list[_Place]] = defaultdict(list)

    @asynccontextmanager
    async def through_envoy(self, crew: Crew) -> AsyncIterator[MeshUnderTest]:
        """Every instance of `crew` beside a sidecar of its type, healthy, and known to everybody."""
        async with AsyncExitStack() as ends:
            members = [
                await _serve(place, agent, place.listener.dup(), ends)
                for agent, instances in crew.items()
                for place in self._take(agent, instances)
            ]
            yield await _complete(self._core, members, ends)

    def _take(self, agent: Agent, count: int) -> list[_Place]:
        places = self._places[agent.settings.type]
        while len(places) < count:
            # A connection is health enough: between two tests the socket is open, but nobody answers.
            place = _place(self._core, agent, "--health-path=", "--drain-grace=0")
            self._ends.callback(place.listener.close)
            self._ends.callback(place.sidecar.stop)
            place.listener.listen()
            place.sidecar.start()
            places.append(place)
        assert len(places) == count, "the crew is always the same"
        return places


@dataclass(frozen=True)
class _Place:
    """A sidecar, and the port at which its agent is to listen."""

    name: str
    sidecar: Program
    listener: socket.socket
    proxy: str


def _place(core: Core, agent: Agent, *arguments: str) -> _Place:
    settings = agent.settings
    name = f"{settings.type}-{secrets.token_hex(4)}"
    with reserve_port(_HOST) as reserved:
        proxy = f"http://{_HOST}:{reserved.port}"
    listener = bind(_HOST, 0)
    sidecar = core.sidecar(
        name,
        *(f"--type={settings.type}", f"--version={settings.version}"),
        *(f"--capability={each}" for each in settings.capabilities),
        *(f"--port={listener.getsockname()[1]}", f"--outbound-port={reserved.port}"),
        *arguments,
    )
    return _Place(name, sidecar, listener, proxy)


async def _join(core: Core, agent: Agent, ends: AsyncExitStack) -> _Member:
    # Once told to drain it stays, as one does that has a call in flight.
    place = _place(core, agent, "--drain-grace=600")
    member = await _serve(place, agent, place.listener, ends)
    ends.push_async_callback(_leave, place.sidecar)
    place.sidecar.start()
    return member


async def _serve(place: _Place, agent: Agent, listener: socket.socket, ends: AsyncExitStack) -> _Member:
    app = agent.app(await ends.enter_async_context(Mesh(proxy=place.proxy)))
    await ends.enter_async_context(serving(app, listener))
    return _Member(place.name, agent, app, place.sidecar, place.proxy)


async def _complete(core: Core, members: list[_Member], ends: AsyncExitStack) -> _ThroughEnvoy:
    """The mesh, once all of its members are known to the door and to each other."""
    for caller in (core.proxy_url, *(each.proxy for each in members)):
        async with _caller(caller) as http:
            for member in members:
                capabilities = member.agent.settings.capabilities
                for host in (member.host, *(f"{each}.cap.mesh" for each in capabilities)):
                    await _eventually(partial(_answers, http, host, 200))
    client = await ends.enter_async_context(Mesh(proxy=core.proxy_url))
    return _ThroughEnvoy(client, core.proxy_url, members)


async def _leave(sidecar: Program) -> None:
    """Have a sidecar withdraw its registration and end, without waiting for the calls in flight."""
    for number in (signal.SIGTERM, signal.SIGINT):  # two different ones, since two of a kind may become one
        sidecar.send(number)
    await asyncio.to_thread(sidecar.stop)


def _caller(proxy: str) -> httpx.AsyncClient:
    """A client that calls through the sidecar at `proxy`."""
    return httpx.AsyncClient(proxy=proxy, trust_env=False, verify=False)


async def _answers(http: httpx.AsyncClient, host: str, status: int) -> bool:
    """Whether a request for the health of `host` has this answer."""
    try:
        return (await http.get(f"http://{host}/health")).status_code == status
    except httpx.TransportError:
        return False


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_LIMIT):
        await until(condition, longest=0.1)
