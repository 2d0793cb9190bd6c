"""The meshes that the client is tested against, behind one interface."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Protocol

from weft.model.agent import Instance
from weft.sdk.agent import Agent
from weft.sdk.mesh import Mesh
from weft.sdk.server import bind, serving_http
from weft.testing import InMemoryMesh

Crew = Mapping[Agent, int]
"""Agents, and how many instances of each to start."""


class MeshUnderTest(Protocol):
    """A running mesh with its agents, healthy and known to all."""

    @property
    def client(self) -> Mesh:
        """A client of it."""
        ...

    async def kill(self, instance: Instance) -> None:
        """SIGKILL an instance, and wait until the mesh knows."""
        ...

    async def drain(self, instance: Instance) -> None:
        """Have an instance finish what it is doing and take nothing new; wait until the mesh knows."""
        ...


MeshFactory = Callable[[Crew], AbstractAsyncContextManager[MeshUnderTest]]


class _InMemory:
    """What happens in memory is known at once."""

    def __init__(self, mesh: InMemoryMesh, client: Mesh) -> None:
        self._mesh = mesh
        self.client = client

    async def kill(self, instance: Instance) -> None:
        self._mesh.kill(instance)

    async def drain(self, instance: Instance) -> None:
        self._mesh.drain(instance)


@asynccontextmanager
async def in_memory(crew: Crew) -> AsyncIterator[MeshUnderTest]:
    """No sockets at all."""
    async with InMemoryMesh() as mesh:
        for agent, instances in crew.items():
            mesh.add(agent, instances)
        yield _InMemory(mesh, mesh.client)


@asynccontextmanager
async def over_http(crew: Crew) -> AsyncIterator[MeshUnderTest]:
    """The client's HTTP transport on a real socket, with an in-memory mesh behind it."""
    listener = bind("127.0.0.1", 0)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with InMemoryMesh() as mesh, serving_http(mesh.asgi, listener), Mesh(proxy=address) as client:
        for agent, instances in crew.items():
            mesh.add(agent, instances)
        yield _InMemory(mesh, client)


FACTORIES: dict[str, MeshFactory] = {"in memory": in_memory, "over HTTP": over_http}
