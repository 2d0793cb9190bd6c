"""The processes that are measured: started, found, weighed, and ended in any case."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from string import Template

import psutil

from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.sidecar.admin import Admin, AdminUnavailable
from weft.sidecar.envoy import admin_socket, envoy_program

CONFIG = Path(__file__).parent / "config"
"""Configurations of Envoy and scripts of load generators."""

STOP_GRACE = 5.0
"""Seconds between SIGTERM and SIGKILL."""


@asynccontextmanager
async def running(
    guard: Guard,
    command: Sequence[str],
    *,
    stderr: int = DEVNULL,
    grace: float = STOP_GRACE,
    environ: Mapping[str, str] | None = None,
) -> AsyncIterator[Child]:
    """Run `command` for the block; its process group ends with it. `environ` adds to its environment."""
    child = await spawn(
        command,
        guard=guard,
        environ={**os.environ, **(environ or {})},
        stdin=DEVNULL,
        stdout=DEVNULL,
        stderr=stderr,
    )
    try:
        yield child
    finally:
        await child.stop(grace)


def envoy_command(config: str, **values: object) -> list[str]:
    """An Envoy with one worker thread and the configuration `config` of ours, `values` filled in."""
    text = Template((CONFIG / config).read_text(encoding="utf-8")).substitute(values)
    return [
        envoy_program(),
        *("--config-yaml", text),
        *("--concurrency", "1"),
        *("--log-level", "error"),
        "--disable-hot-restart",
    ]


def module_command(name: str, *arguments: str) -> list[str]:
    """A module, run by this Python."""
    return [sys.executable, "-m", name, *arguments]


def envoy_of(sidecar: int) -> psutil.Process:
    """The Envoy of a sidecar, by the sidecar's process id. The program beside it may be another."""
    children = psutil.Process(sidecar).children()
    return next(each for each in children if "--config-path" in each.cmdline())


async def admin_socket_of(sidecar: int, timeout: float) -> Path:
    """The admin socket of a sidecar's Envoy, once it is ready. Raises RuntimeError after `timeout` s."""

    async def ready() -> bool:
        with suppress(StopIteration, AdminUnavailable):
            return await Admin(_admin_socket(sidecar)).ready()
        return False

    try:
        async with asyncio.timeout(timeout):
            await until(ready)
    except TimeoutError:
        raise RuntimeError(f"the Envoy of sidecar {sidecar} is not ready after {timeout:g} s") from None
    return _admin_socket(sidecar)


def _admin_socket(sidecar: int) -> Path:
    command = envoy_of(sidecar).cmdline()
    return admin_socket(Path(command[command.index("--config-path") + 1]).parent)


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used, in user and system mode."""
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


def pss_megabytes(pid: int) -> float:
    """Memory of a process in MB (10⁶ bytes), pages it shares with others counted in part.

    Raises RuntimeError where the system does not know that: only Linux does.
    """
    if sys.platform != "linux":
        raise RuntimeError("only Linux tells how much memory is a process's own share (PSS)")
    pss: int = psutil.Process(pid).memory_full_info().pss
    return pss / 1e6
