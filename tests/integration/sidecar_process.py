"""A sidecar as a real process, beside real programs, for tests."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
from tests.integration.sidecar_control import Control
from tests.processes import agent_type

from weft.aio.poll import until

LIMIT = 60.0
"""Seconds within which anything a test waits for has happened, or it fails."""


class SidecarProcess:
    """A running `python -m weft.sidecar`."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def log(self) -> str:
        """What it and its program have written so far."""
        return self._log.read_text(errors="replace")

    async def logs(self, text: str) -> None:
        """Wait until it has written `text`."""
        await eventually(lambda: text in self.log, lambda: f"{text!r} is not in the log:\n{self.log}")

    async def exit_code(self) -> int:
        """Wait for its end."""
        async with asyncio.timeout(LIMIT):
            return await self.process.wait()

    def send(self, number: int) -> None:
        """Send a signal to it, and to nobody else."""
        self.process.send_signal(number)

    async def hears(self, number: int) -> None:
        """Send it a signal, and wait until that is delivered: of those that wait together only one counts."""
        self.send(number)
        status = Path(f"/proc/{self.process.pid}/status")

        def delivered() -> bool:
            waiting = [line.split()[1] for line in status.read_text().splitlines() if "Pnd:" in line]
            return not any(int(each, 16) & (1 << (number - 1)) for each in waiting)

        await eventually(delivered, lambda: f"signal {number} was never delivered")

    def envoy(self) -> psutil.Process:
        """Its Envoy."""
        (found,) = [each for each in self.family() if each.name().startswith("envoy")]
        return found

    def family(self) -> list[psutil.Process]:
        """All processes it started, and those they started."""
        return psutil.Process(self.process.pid).children(recursive=True)

    async def envoy_ports(self) -> set[int]:
        """The ports its Envoy listens at, once it does."""
        await eventually(lambda: bool(self._listening()), lambda: self.log)
        return self._listening()

    def _listening(self) -> set[int]:
        with suppress(ValueError, psutil.Error):
            connections = self.envoy().net_connections("tcp")
            return {each.laddr.port for each in connections if each.status == psutil.CONN_LISTEN}
        return set()


@contextmanager
def runtime_parent() -> Iterator[Path]:
    """A short directory for sidecars' own: nothing may be left in it. (Paths of sockets must be short.)"""
    with TemporaryDirectory(prefix="wt-", dir="/tmp") as name:
        yield Path(name)
        left = list(Path(name).iterdir())
    assert left == []


@asynccontextmanager
async def sidecar(
    directory: Path,
    control: Control,
    *arguments: str,
    command: Sequence[str] = (),
    instance: str = "client-1",
    nats: str = "nats://127.0.0.1:9",
) -> AsyncIterator[SidecarProcess]:
    """Start a sidecar of the name `instance`, with its log and runtime directory below `directory`.

    None of its processes is left.
    """
    admission = await control.api.admission(agent_type(arguments), instance)
    addresses = ("--xds", str(control.xds), "--nats", nats)
    log = directory / "sidecar.log"
    with runtime_parent() as runtime, log.open("wb") as output:
        options = [*addresses, "--id", instance, "--runtime-dir", str(runtime), *arguments]
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "weft.sidecar", *options, *(("--", *command) if command else ())),
            stdout=output,
            stderr=output,
            stdin=asyncio.subprocess.DEVNULL,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **admission},
            process_group=0,
        )
        running = SidecarProcess(process, log)
        family: list[psutil.Process] = []
        try:
            yield running
        finally:
            if process.returncode is None:
                family = running.family()
                process.kill()
            await process.wait()
            await eventually(lambda: not any(alive(each) for each in family), lambda: f"{family} survived")
            await eventually(
                lambda: not any(runtime.iterdir()), lambda: f"{list(runtime.iterdir())} were left"
            )


def alive(process: psutil.Process) -> bool:
    """Whether it still runs, other than as a zombie."""
    with suppress(psutil.NoSuchProcess):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


async def eventually(condition: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    """Wait until `condition` holds; fail with what `otherwise` says if it takes too long."""

    async def holds() -> bool:
        return condition()

    try:
        async with asyncio.timeout(LIMIT):
            await until(holds)
    except TimeoutError:
        raise AssertionError(otherwise()) from None
