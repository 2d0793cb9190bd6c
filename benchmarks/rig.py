"""What the figures are taken on: a mesh of its own, agents in it, and the bare pair of Envoys beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from benchmarks.processes import envoy_command, envoy_of, running

from weft.aio.children import Child
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.local.commands import DOOR, sidecar_command
from weft.local.mesh import LocalMesh
from weft.local.ports import free_ports

HOST = "127.0.0.1"

AGENT = "bench"
"""Type of the agent whose calls are measured."""

START_TIMEOUT = 60.0
"""Seconds that anything may take to start."""

_TOLD_OF_LOG = 2000
"""Characters of the processes' log that go with an error."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two Envoys between a client and an agent."""

    url: str
    """Where the client sends requests."""
    outbound: int
    """Process id of the client's Envoy."""
    inbound: int
    """Process id of the agent's Envoy."""


class Rig:
    """A mesh, and a place to start what is measured. Use `rig()`."""

    def __init__(self, guard: Guard, directory: Path, mesh: LocalMesh, stack: AsyncExitStack) -> None:
        self.guard = guard
        self.directory = directory
        """For temporary files; its path is short, since Unix sockets are made in it."""
        self.mesh = mesh
        self._stack = stack
        self._log = stack.enter_context((directory / "log").open("a+b"))

    @property
    def log(self) -> str:
        """What the processes have written to their standard errors."""
        return (self.directory / "log").read_text(encoding="utf-8", errors="replace")

    async def start(self, command: Sequence[str], *, stderr: int | None = None) -> Child:
        """Start a process that lives as long as the rig does, unless it is stopped before.

        Its standard error goes to the log, or where `stderr` says.
        """
        errors = self._log.fileno() if stderr is None else stderr
        return await self._stack.enter_async_context(running(self.guard, command, stderr=errors))

    def port(self) -> int:
        """A port that nobody else takes while the rig lives; Envoy can listen at it."""
        return self._stack.enter_context(reserve_port(HOST)).port

    async def backend(self) -> int:
        """Start an agent far faster than a proxy; return its port."""
        port = self.port()
        await self.start(envoy_command("backend.yaml", port=port))
        await answers(f"http://{HOST}:{port}")
        return port

    async def sidecar(self, *arguments: str, program: Sequence[str] = (), stderr: int | None = None) -> Child:
        """Start a sidecar of the mesh, which need not be ready yet."""
        return await self.start(self.sidecar_command(*arguments, program=program), stderr=stderr)

    def sidecar_command(self, *arguments: str, program: Sequence[str] = ()) -> list[str]:
        """The command line of a sidecar of the mesh."""
        options = ["--runtime-dir", str(self.directory), *arguments]
        return sidecar_command(self.mesh.ports, options, program)

    async def mesh_pair(self, backend: int) -> Pair:
        """The door's Envoy and that of a sidecar beside the agent at port `backend`."""
        sidecar = await self.sidecar("--type", AGENT, "--id", f"{AGENT}-1", "--port", str(backend))
        await answers(self.mesh.proxy_url, AGENT)
        return Pair(self.mesh.proxy_url, envoy_of(self.door).pid, envoy_of(sidecar.pid).pid)

    @property
    def door(self) -> int:
        """Process id of the mesh's door, the sidecar by which scripts call."""
        pid = self.mesh.children[DOOR].pid
        assert pid is not None, "the mesh is up"
        return pid

    async def bare_pair(self, backend: int) -> Pair:
        """A pair of Envoys with the least configuration that a person would write."""
        outer, inner = self.port(), self.port()
        admin = self.directory
        inbound = envoy_command("bare_inbound.yaml", port=inner, upstream=backend, admin=admin / "in.sock")
        outbound = envoy_command("bare_outbound.yaml", port=outer, upstream=inner, admin=admin / "out.sock")
        pids = [(await self.start(each)).pid for each in (outbound, inbound)]
        url = f"http://{HOST}:{outer}"
        await answers(url)
        return Pair(url, *pids)


@asynccontextmanager
async def rig() -> AsyncIterator[Rig]:
    """A fresh mesh without agents; everything that was started in it ends with the block."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="wb-")))
        guard = await stack.enter_async_context(Guard())
        guard.add_directory(directory)
        mesh = LocalMesh(directory / "mesh", ports=free_ports(), fresh=True)
        await stack.enter_async_context(mesh)
        place = Rig(guard, directory, mesh, stack)
        try:
            yield place
        except RuntimeError as error:
            error.add_note(place.log[-_TOLD_OF_LOG:])
            raise


def free_port() -> int:
    """A port at which nobody listens, for a program whose sidecar reserves it."""
    with reserve_port(HOST) as reserved:
        return reserved.port


async def answers(url: str, destination: str = "") -> None:
    """Wait until GET /health at `url`, for `destination` in the mesh, is answered with 200.

    Raises RuntimeError after START_TIMEOUT.
    """
    headers = {"x-weft-to": destination} if destination else {}
    timeout = aiohttp.ClientTimeout(total=2)
    async with aiohttp.ClientSession(headers=headers, timeout=timeout) as client:

        async def ok() -> bool:
            try:
                async with client.get(f"{url}/health") as response:
                    return response.status == 200
            except (aiohttp.ClientError, TimeoutError):
                return False

        try:
            async with asyncio.timeout(START_TIMEOUT):
                await until(ok)
        except TimeoutError:
            raise RuntimeError(f"no answer from {destination or url} in {START_TIMEOUT:g} s") from None
