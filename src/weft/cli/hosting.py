"""A local mesh in this process, from start until a signal stops it."""

from __future__ import annotations

import asyncio
from typing import Protocol

from weft.aio.signals import stop_signals
from weft.cli.exit_codes import ExitCode
from weft.errors import MeshError, Unavailable
from weft.local.mesh import LocalMesh
from weft.model.local_state import ChildState, MeshState


class Reporter(Protocol):
    """Tells whoever started the mesh how it goes."""

    def child(self, state: ChildState) -> None:
        """A process took a step."""
        ...

    def line(self, name: str, line: str) -> None:
        """A process wrote a line."""
        ...

    @property
    def insists(self) -> bool:
        """Whether the mesh counts as started only if all its agents are healthy."""
        ...

    def ready(self, state: MeshState, problem: str, /) -> None:
        """The mesh is up; `problem` says which agents are not healthy, if any."""
        ...

    def failed(self, error: MeshError, /) -> None:
        """The mesh did not start; nothing is left of it."""
        ...

    def stopping(self) -> None:
        """A signal asked to stop."""
        ...


async def host(mesh: LocalMesh, reporter: Reporter, *, timeout: float) -> ExitCode:
    """Run `mesh` until SIGINT, SIGTERM or SIGHUP; each further one hurries.

    `timeout` is how many seconds the agents have to become healthy. Raises the MeshError for which the mesh
    did not start.
    """
    serving = asyncio.create_task(_serve(mesh, reporter, timeout=timeout), name="mesh")
    asked = False

    def stop() -> None:
        nonlocal asked
        if asked:
            mesh.hurry()
            return
        asked = True
        reporter.stopping()
        serving.cancel()

    with stop_signals(stop):
        await asyncio.wait([serving])
    if not serving.cancelled():
        serving.result()
    return ExitCode.OK


async def _serve(mesh: LocalMesh, reporter: Reporter, *, timeout: float) -> None:
    try:
        async with mesh:
            problem = await _unhealthy(mesh, timeout)
            if problem and reporter.insists:
                raise MeshError(problem)
            reporter.ready(mesh.state, problem)
            await asyncio.get_running_loop().create_future()  # a signal cancels it
    except Unavailable as error:
        # Not "the mesh cannot be reached": it could not be started.
        raise MeshError(error.detail) from error


async def _unhealthy(mesh: LocalMesh, timeout: float) -> str:
    try:
        await mesh.wait_healthy(timeout)
    except Unavailable as error:
        return error.detail
    return ""
