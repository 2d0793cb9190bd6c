"""What each implementation of a contract is tested with."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from tests.conformance.broker_scene import Scene, scene
from tests.conformance.brokers import BACKENDS, INEXACT
from tests.conformance.meshes import FACTORIES, MeshFactory
from tests.conformance.real_mesh import StandingMesh, through_envoy
from tests.conformance.running_broker import RunningBroker
from tests.hosting import hosted
from tests.processes import Core, core
from tests.servers import nats_server

from weft.store.bucket import Store
from weft.store.memory import MemoryStore
from weft.store.nats import NatsStore


@pytest.fixture(params=["memory", "nats"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """An empty store of each kind."""
    if request.param == "memory":
        memory = MemoryStore()
        yield memory
        await memory.close()
        return
    async with nats_server(tmp_path) as server:
        nats = await NatsStore.connect([server.url], name="conformance")
        yield nats
        await nats.close()


THROUGH_ENVOY = "through Envoy"


@pytest.fixture(params=[*FACTORIES, THROUGH_ENVOY])
def factory(request: pytest.FixtureRequest) -> MeshFactory:
    """Each implementation of a mesh."""
    if request.param == THROUGH_ENVOY:
        return partial(through_envoy, request.getfixturevalue("processes"))
    return FACTORIES[request.param]


@pytest.fixture(params=[*FACTORIES, THROUGH_ENVOY])
def steady_factory(request: pytest.FixtureRequest) -> MeshFactory:
    """Each implementation of a mesh, for tests with one and the same crew, whose instances all survive."""
    if request.param == THROUGH_ENVOY:
        standing: StandingMesh = request.getfixturevalue("standing")
        return standing.through_envoy
    return FACTORIES[request.param]


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StandingMesh]:
    """A mesh of its own with sidecars that tests share: others would see its instances in theirs."""
    with core(tmp_path_factory.mktemp("standing"), os.environ, lease_ttl=3.0) as running:
        with asyncio.Runner() as runner:
            runner.run(running.start())
        with ExitStack() as ends:
            yield StandingMesh(running, ends)


@pytest.fixture(scope="session")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    """The processes of a mesh without agents, which all tests share."""
    with core(tmp_path_factory.mktemp("mesh"), os.environ, lease_ttl=3.0) as running:
        with asyncio.Runner() as runner:
            runner.run(running.start())
        yield running


class Servers:
    """Brokers of each kind, started when they are first needed; `ends` stops them."""

    def __init__(self, directory: Callable[[str], Path], ends: AsyncExitStack) -> None:
        self._directory = directory
        self._ends = ends
        self._started: dict[str, RunningBroker] = {}

    async def get(self, kind: str) -> RunningBroker:
        """The one of that kind."""
        if kind not in self._started:
            hosting = hosted(BACKENDS[kind](self._directory(kind)))
            self._started[kind] = await self._ends.enter_async_context(hosting)
        return self._started[kind]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def broker_servers(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Servers]:
    """They stay from one module to the next: RabbitMQ takes seconds to start."""
    async with AsyncExitStack() as ends:
        yield Servers(tmp_path_factory.mktemp, ends)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=BACKENDS)
async def running(request: pytest.FixtureRequest, broker_servers: Servers) -> RunningBroker:
    """Each kind of broker, which all tests of the session share."""
    return await broker_servers.get(request.param)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(request: pytest.FixtureRequest, running: RunningBroker) -> AsyncIterator[Scene]:
    """A scene of its own for each test."""
    async with scene(running, exact=request.node.callspec.params["running"] not in INEXACT) as made:
        yield made
