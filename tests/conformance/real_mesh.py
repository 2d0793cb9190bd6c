"""A mesh of real processes behind the interface of `meshes`; only the agents run in the test's own."""

from __future__ import annotations

import asyncio
import secrets
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
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

_LIMIT = 30.0
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
        await _eventually(partial(_answers, self._door, member.host, NoHealthyAgent.status))

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
        for caller in (core.proxy_url, *(each.proxy for each in members)):
            for member in members:
                hosts = (member.host, *(f"{each}.cap.mesh" for each in member.agent.settings.capabilities))
                for host in hosts:
                    await _eventually(partial(_answers, caller, host, 200))
        client = await ends.enter_async_context(Mesh(proxy=core.proxy_url))
        yield _ThroughEnvoy(client, core.proxy_url, members)


async def _join(core: Core, agent: Agent, ends: AsyncExitStack) -> _Member:
    settings = agent.settings
    name = f"{settings.type}-{secrets.token_hex(4)}"
    with reserve_port(_HOST) as reserved:
        proxy = f"http://{_HOST}:{reserved.port}"
    listener = bind(_HOST, 0)
    app = agent.app(await ends.enter_async_context(Mesh(proxy=proxy)))
    await ends.enter_async_context(serving(app, listener))
    sidecar = core.sidecar(
        name,
        *(f"--type={settings.type}", f"--version={settings.version}"),
        *(f"--capability={each}" for each in settings.capabilities),
        *(f"--port={listener.getsockname()[1]}", f"--outbound-port={reserved.port}"),
        # Once told to drain it stays, as one does that has a call in flight.
        "--drain-grace=600",
    )
    ends.push_async_callback(_leave, sidecar)
    sidecar.start()
    return _Member(name, agent, app, sidecar, proxy)


async def _leave(sidecar: Program) -> None:
    """Have a sidecar withdraw its registration and end, without waiting for the calls in flight."""
    for number in (signal.SIGTERM, signal.SIGINT):  # two different ones, since two of a kind may become one
        sidecar.send(number)
    await asyncio.to_thread(sidecar.stop)


async def _answers(caller: str, host: str, status: int) -> bool:
    """Whether a request for the health of `host`, through the sidecar at `caller`, has this answer."""
    async with httpx.AsyncClient(proxy=caller, trust_env=False, verify=False) as client:
        try:
            return (await client.get(f"http://{host}/health")).status_code == status
        except httpx.TransportError:
            return False


async def _eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_LIMIT):
        await until(condition, longest=0.1)
