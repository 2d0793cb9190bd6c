"""`weft down`: stop the mesh on this machine."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from weft.aio.lockfile import is_locked
from weft.aio.poll import until
from weft.cli.api import the_mesh
from weft.cli.options import MeshOption, Output, OutputOption
from weft.cli.show import print_json
from weft.errors import InvalidRequest, MeshError
from weft.model.local_state import LOCK_FILE, MeshState, mesh_directory

_HURRIED = 15.0
_KILLED = 10.0


async def down(
    *,
    timeout: Annotated[float, Parameter(help="Seconds that calls in flight have to end.")] = 45.0,
    mesh: MeshOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Stop the mesh on this machine: agents finish the calls they have in flight, then everything ends."""
    if timeout < 0:
        raise InvalidRequest("--timeout must not be negative")
    state = the_mesh(mesh)
    lock = mesh_directory(os.environ, state.name) / LOCK_FILE
    steps = ((signal.SIGTERM, timeout), (signal.SIGTERM, _HURRIED), (signal.SIGKILL, _KILLED))
    for number, patience in steps:
        if await _ended(state, lock, number, patience):
            break
    else:
        raise MeshError(f"mesh {state.name!r} (pid {state.pid}) does not end")
    if output is Output.JSON:
        print_json({"name": state.name, "stopped": True})
    else:
        print(f"mesh {state.name} has stopped")


async def _ended(state: MeshState, lock: Path, number: int, patience: float) -> bool:
    """Send a signal to the mesh and wait for its end, at most `patience` seconds."""
    with suppress(ProcessLookupError):
        os.kill(state.pid, number)

    async def unlocked() -> bool:
        return not is_locked(lock)

    with suppress(TimeoutError):
        async with asyncio.timeout(patience):
            await until(unlocked)
            return True
    return False
