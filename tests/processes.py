"""A mesh of processes started by hand, each of which can be killed and started again at any time."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from weft.aio.poll import until
from weft.local.commands import control_command, door_command
from weft.local.home import MeshHome
from weft.local.nats import nats_command, nats_serves
from weft.local.ports import free_ports
from weft.model.local_state import LOOPBACK

_START_LIMIT = 40.0
_STOP_LIMIT = 20.0


class Program:
    """A process that writes its log to a file."""

    def __init__(
        self, name: str, command: Sequence[str], directory: Path, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self._command = command
        self._environ = environ
        self._log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> str:
        """What it has written so far."""
        return self._log.read_text(errors="replace")

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it (again)."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={"PYTHONUNBUFFERED": "1", **self._environ},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                process_group=0,
            )

    def send(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL it, and wait for its end."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(_STOP_LIMIT)

    def kill_family(self) -> None:
        """SIGKILL it and all it started, but for its guard, and wait for their end."""
        assert self._process is not None
        children = [each for each in psutil.Process(self._process.pid).children() if each.name() != "sh"]
        self.kill()
        for each in children:
            with suppress(psutil.NoSuchProcess):  # the guard may be faster
                each.kill()
        _, alive = psutil.wait_procs(children, timeout=_STOP_LIMIT)
        assert not alive

    def stop(self) -> None:
        """SIGTERM it, and wait for its end; SIGKILL if it does not come."""
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(_STOP_LIMIT)
        except subprocess.TimeoutExpired:
            self.kill()
            raise


class Core:
    """NATS, the control plane, and the door: a mesh without agents."""

    def __init__(self, directory: Path, environ: Mapping[str, str], *, lease_ttl: float) -> None:
        """The control plane takes an instance for dead `lease_ttl` seconds after it was last heard of."""
        self.directory = directory
        self.environ = environ
        self.ports = free_ports()
        self.proxy_url = f"http://{LOOPBACK}:{self.ports.proxy}"
        self.api_url = f"http://{LOOPBACK}:{self.ports.api}"
        self._lease_ttl = lease_ttl
        self._lease = ("--lease-ttl", str(lease_ttl))
        home = MeshHome(directory)
        home.nats.mkdir(parents=True)
        self.nats = self._program("nats", nats_command(home, self.ports.nats))
        self.control = self._program("control", [*control_command(self.ports), *self._lease])
        self.door = self._program("door", door_command(self.ports))

    async def start(self) -> None:
        """Start everything, and wait until it serves."""
        async with asyncio.timeout(_START_LIMIT):
            self.nats.start()
            await self.serving(self.nats)
            self.control.start()
            await self.serving(self.control)
            self.door.start()
            await self.serving(self.door)

    async def serving(self, program: Program) -> None:
        """Wait until a part serves. Raises AssertionError, with its log, if it has ended."""
        port = {"nats": self.ports.nats, "control": self.ports.api, "door": self.ports.proxy}[program.name]

        async def ready() -> bool:
            assert program.running, f"{program.name} has ended:\n{program.log}"
            return await nats_serves(port) if program is self.nats else await _accepts(port)

        await until(ready, longest=0.1)

    def sidecar(self, name: str, *arguments: str, command: Sequence[str] = ()) -> Program:
        """A sidecar of the instance `name`, yet to be started."""
        mesh = ("--nats", f"nats://{LOOPBACK}:{self.ports.nats}", "--xds", f"{LOOPBACK}:{self.ports.xds}")
        renewal = ("--renew-interval", str(self._lease_ttl / 4))
        tail = ("--", *command) if command else ()
        return self._program(
            name,
            [
                sys.executable,
                "-m",
                "weft.sidecar",
                "--id",
                name,
                *mesh,
                *self._lease,
                *renewal,
                *arguments,
                *tail,
            ],
        )

    def _program(self, name: str, command: Sequence[str]) -> Program:
        return Program(name, command, self.directory, self.environ)


@contextmanager
def core(directory: Path, environ: Mapping[str, str], *, lease_ttl: float) -> Iterator[Core]:
    """A core yet to be started, that keeps everything in `directory`; none of it runs when it is left."""
    parts = Core(directory, environ, lease_ttl=lease_ttl)
    try:
        yield parts
    finally:
        for each in (parts.door, parts.control, parts.nats):
            each.stop()


async def _accepts(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
