"""What the figures are taken on: a mesh of its own, agents in it, and the bare pair of Envoys beside it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import aiohttp
from benchmarks.bare_tls import mutual, plain
from benchmarks.processes import admin_socket_of, envoy_command, envoy_of, running

from weft.aio.children import Child
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.local.commands import control_command, sidecar_command
from weft.local.mesh import LocalMesh
from weft.local.nats_security import NatsSecurity
from weft.local.ports import free_ports
from weft.local.security import LocalSecurity
from weft.model.telemetry_wire import DEFAULT_SAMPLING

HOST = "127.0.0.1"

AGENT = "bench"
"""Type of the agent whose calls are measured."""

MESH = "mesh"
"""Name of the mesh, and of its directory in the rig's."""

START_TIMEOUT = 60.0
"""Seconds that anything may take to start."""

_CONTROL = "weft.controlplane"

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

    async def start(
        self, command: Sequence[str], *, stderr: int | None = None, environ: Mapping[str, str] | None = None
    ) -> Child:
        """Start a process that lives as long as the rig does, unless it is stopped before.

        Its standard error goes to the log, or where `stderr` says; `environ` adds to its environment.
        """
        errors = self._log.fileno() if stderr is None else stderr
        return await self._stack.enter_async_context(
            running(self.guard, command, stderr=errors, environ=environ)
        )

    def port(self) -> int:
        """A port that nobody else takes while the rig lives; Envoy can listen at it."""
        return self._stack.enter_context(reserve_port(HOST)).port

    async def backend(self) -> int:
        """Start an agent far faster than a proxy; return its port."""
        port = self.port()
        await self.start(envoy_command("backend.yaml", port=port))
        await answers(f"http://{HOST}:{port}")
        return port

    async def sidecar(
        self,
        instance: str,
        *arguments: str,
        agent_type: str | None = None,
        program: Sequence[str] = (),
        stderr: int | None = None,
    ) -> Child:
        """Start a sidecar of the mesh, which need not be ready yet; with an agent, if it has a type.

        It begins as many traces as sidecars do by themselves: those of `weft up` trace every call.
        """
        sampling = ["--trace-sampling", f"{DEFAULT_SAMPLING:g}"]
        options = ["--runtime-dir", str(self.directory), "--id", instance, *sampling, *arguments]
        if agent_type is not None:
            options += ["--type", agent_type]
        command = sidecar_command(self.mesh.ports, self.directory / MESH, options, program)
        token = await self.mesh.api.join_token(agent_type, instance, {})
        return await self.start(command, stderr=stderr, environ={"WEFT_JOIN_TOKEN": token})

    async def another_control(self, name: str, *, module: str = _CONTROL) -> int:
        """Start one more replica of the control plane; the port at which sidecars reach it, soon.

        `module` is what is run for it.
        """
        free = free_ports()
        ports = self.mesh.ports.model_copy(
            update={"api": free.api, "xds": free.xds, "metrics": free.metrics, "dashboard": free.dashboard}
        )
        # Only names of files are asked of it; what else it has stands in NATS's configuration.
        security = LocalSecurity(self.directory / MESH, "", NatsSecurity(self.nats_keys, "", ""))
        command = [module if each == _CONTROL else each for each in control_command(ports)]
        command += ["--replica", name]
        await self.start(command, environ=security.control_environment())
        return ports.xds

    async def mesh_pair(self, backend: int) -> Pair:
        """The Envoys of a sidecar for who calls, and of one beside the agent at port `backend`."""
        sidecar = await self.sidecar(f"{AGENT}-1", "--port", str(backend), agent_type=AGENT)
        url, caller = await self.caller("caller-1")
        await answers(url, AGENT)
        return Pair(url, caller, envoy_of(sidecar.pid).pid)

    async def caller(self, instance: str) -> tuple[str, int]:
        """Start a sidecar without an agent; its address, and the process id of its Envoy, which is ready."""
        port = free_port()
        sidecar = await self.sidecar(instance, "--outbound-port", str(port))
        await admin_socket_of(sidecar.pid, START_TIMEOUT)
        return f"http://{HOST}:{port}", envoy_of(sidecar.pid).pid

    @property
    def nats_keys(self) -> Path:
        """Directory with what the control plane proves itself to NATS with."""
        return self.directory / MESH / "identity" / "nats"

    async def bare_pair(self, backend: int, *, mtls: bool = True) -> Pair:
        """A pair of Envoys with the least configuration that a person would write, with or without TLS."""
        outer, inner = self.port(), self.port()
        name = "mtls" if mtls else "plain"
        admin, transport = self.directory, mutual(self.directory / name) if mtls else plain()
        inbound = envoy_command(
            "bare_inbound.yaml",
            port=inner,
            upstream=backend,
            admin=admin / f"{name}-in.sock",
            transport=transport.inbound,
        )
        outbound = envoy_command(
            "bare_outbound.yaml",
            port=outer,
            upstream=inner,
            admin=admin / f"{name}-out.sock",
            transport=transport.outbound,
        )
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
        mesh = LocalMesh(directory / MESH, ports=free_ports(), fresh=True)
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
