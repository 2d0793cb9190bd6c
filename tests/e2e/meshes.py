"""A whole mesh of real processes, with handles to every one of them, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from tests.e2e.leftovers import Scope, scope
from tests.integration.sidecar_process import LIMIT, alive

from weft import Mesh, NotFound
from weft.aio.poll import until
from weft.local.mesh import LocalMesh
from weft.local.ports import free_ports

PROGRAMS = Path(__file__).parent


class RunningMesh:
    """A LocalMesh that has been entered, and its processes."""

    def __init__(self, local: LocalMesh, home: Path, inside: Scope) -> None:
        self.local = local
        self.api = local.api
        self.home = home
        self.scope = inside

    def process(self, name: str) -> psutil.Process:
        """The process `nats`, `control`, `door`, or the sidecar `<type>-<n>`."""
        pid = self.local.children[name].pid
        assert pid is not None, f"{name} does not run"
        return psutil.Process(pid)

    def envoy(self, name: str) -> psutil.Process:
        """The Envoy of a sidecar."""
        (found,) = [each for each in self.process(name).children() if each.name().startswith("envoy")]
        return found

    def program(self, name: str) -> psutil.Process:
        """The agent's program beside a sidecar."""
        (found,) = [
            each for each in self.process(name).children() if each.name().startswith(("python", "worker"))
        ]
        return found

    def log(self, name: str) -> str:
        """What a process has written so far."""
        return (self.home / "logs" / f"{name}.log").read_text(errors="replace")

    async def status(self, agent_type: str, instance: str) -> str:
        """The status of an instance as the control plane has it; "gone" if it is not registered."""
        try:
            return str((await self.api.agent(agent_type, instance))["status"])
        except NotFound:
            return "gone"

    async def becomes(self, agent_type: str, instance: str, *statuses: str) -> None:
        """Wait until an instance has one of `statuses`."""

        async def there() -> bool:
            return await self.status(agent_type, instance) in statuses

        await eventually(there, lambda: f"{instance} never became {' or '.join(statuses)}")

    async def notices(self, name: str) -> None:
        """Wait until the mesh has seen that a process of its own ended."""

        async def seen() -> bool:
            return self.local.children[name].phase != "ready"

        await eventually(seen, lambda: f"nobody noticed the end of {name}")

    async def ready(self, name: str) -> None:
        """Wait until a process does its work."""

        async def serves() -> bool:
            return self.local.children[name].phase == "ready"

        await eventually(serves, lambda: f"{name} is {self.local.children[name]}\n{self.log(name)}")

    async def ended(self, name: str) -> None:
        """Wait until an agent that is no longer declared has ended with its sidecar."""

        async def forgotten() -> bool:
            return name not in self.local.children

        await eventually(forgotten, lambda: f"{name} is {self.local.children[name]}")

    async def replace(self, name: str) -> None:
        """Drain an agent, and wait until its successor is ready."""
        self.process(name).terminate()
        await self.notices(name)
        await self.ready(name)

    async def apply(self, manifest: str) -> None:
        """Apply a manifest."""
        await self.api.apply(manifest, "test.yaml")


@asynccontextmanager
async def running_mesh(manifest: str, *, environ: dict[str, str] | None = None) -> AsyncIterator[RunningMesh]:
    """A mesh with everything in `manifest` healthy. At its end nothing is left over of it."""
    with scope() as inside, TemporaryDirectory(prefix="wh-", dir="/tmp") as parent:
        home = Path(parent) / "mesh"
        local = LocalMesh(
            home,
            ports=free_ports(),
            manifest=manifest,
            working_directory=PROGRAMS,
            environ={**inside.environ, **(environ or {})},
        )
        async with local:
            await local.wait_healthy(timeout=180)
            inside.note_ports()
            yield RunningMesh(local, home, inside)
            inside.note_ports()
        await inside.check_empty()


async def eventually(
    condition: Callable[[], Awaitable[bool]],
    otherwise: Callable[[], str],
    *,
    pause: float = 0.1,
    limit: float = LIMIT,
) -> None:
    """Wait until `condition`, asked `pause` seconds apart at most, holds; else fail with `otherwise`."""
    try:
        async with asyncio.timeout(limit):
            await until(condition, longest=pause)
    except TimeoutError:
        raise AssertionError(otherwise()) from None


async def gone(process: psutil.Process) -> None:
    """Wait for the end of a process."""

    async def ended() -> bool:
        return not alive(process)

    await eventually(ended, lambda: f"{process} lives on")


def mesh_client(mesh: RunningMesh) -> Mesh:
    """The SDK's client, through the door."""
    return Mesh(proxy=mesh.local.proxy_url)
