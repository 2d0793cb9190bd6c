"""A mesh of processes started by hand, each of which can be killed and started again at any time."""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import httpx
import psutil

from weft.aio.poll import until
from weft.identity.tls import client_context
from weft.local.commands import DOOR, control_command, door_command, sidecar_command
from weft.local.control import ControlApi
from weft.local.home import MeshHome
from weft.local.nats import nats_command, nats_serves
from weft.local.ports import free_ports
from weft.local.token_file import TOKEN_FILE
from weft.model.local_state import LOOPBACK, MeshPorts

_START_LIMIT = 90.0
_STOP_LIMIT = 60.0


class Program:
    """A process that writes its log to a file."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        directory: Path,
        environ: Mapping[str, str],
        admission: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        """`admission` gives what one start needs beside `environ`: a join token, which is good once."""
        self.name = name
        self._command = command
        self._environ = environ
        self._admission = admission
        self._admitted: Mapping[str, str] | None = None
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

    @property
    def pid(self) -> int:
        """Of the process that was started last."""
        assert self._process is not None
        return self._process.pid

    def admit(self, admitted: Mapping[str, str]) -> None:
        """Take what the next start needs from somebody else: the control plane may be down then."""
        self._admitted = admitted

    def start(self) -> None:
        """Start it (again)."""
        admitted = self._admission() if self._admitted is None else self._admitted
        self._admitted = None
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env={"PYTHONUNBUFFERED": "1", **self._environ, **admitted},
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
        self.api_url = f"https://{LOOPBACK}:{self.ports.api}"
        self._lease_ttl = lease_ttl
        self._lease = ("--lease-ttl", str(lease_ttl))
        home = MeshHome(directory)
        home.nats.mkdir(parents=True)
        self._security = home.secure(fresh=True)
        self.nats = self._program("nats", nats_command(home, self.ports.nats, self._security.nats))
        self.control = Program(
            "control",
            [*control_command(self.ports), *self._lease],
            directory,
            {**environ, **self._security.control_environment()},
        )
        door = door_command(self.ports, directory)
        self.door = Program(DOOR, door, directory, environ, partial(self.join_token, None, DOOR))

    def api(self, port: int | None = None) -> ControlApi:
        """The control plane's API, asked by whoever started it all; use as an async context manager.

        `port` is that of another replica.
        """
        url = self.api_url if port is None else f"https://{LOOPBACK}:{port}"
        return ControlApi(url, token=self._security.token, roots=self._security.bundle)

    @property
    def operator_environ(self) -> Mapping[str, str]:
        """Where it is, and who asks: for commands such as `weft run`."""
        return {
            "WEFT_NATS": f"tls://{LOOPBACK}:{self.ports.nats}",
            "WEFT_XDS": f"{LOOPBACK}:{self.ports.xds}",
            "WEFT_API": self.api_url,
            "WEFT_CA_FILE": str(self._security.bundle),
            "WEFT_TOKEN_FILE": str(self.directory / TOKEN_FILE),
        }

    async def start(self) -> None:
        """Start everything, and wait until it serves."""
        async with asyncio.timeout(_START_LIMIT):
            self.nats.start()
            await self.serving(self.nats)
            self.control.start()
            await self.serving(self.control)
            if self._security.refresh_nats_trust():
                self.nats.send(signal.SIGHUP)
            self.door.start()
            await self.serving(self.door)

    def join_token(self, kind: str | None, instance: str) -> Mapping[str, str]:
        """The environment with which a sidecar gets its identity, once."""
        answer = httpx.post(
            f"{self.api_url}/v1/join-tokens",
            json={"type": kind, "instance": instance, "labels": {}},
            headers={"authorization": f"Bearer {self._security.token}"},
            verify=client_context(self._security.bundle.read_bytes()),
            trust_env=False,
            timeout=_START_LIMIT,
        )
        return {"WEFT_JOIN_TOKEN": answer.raise_for_status().json()["token"]}

    async def serving(self, program: Program) -> None:
        """Wait until a part serves. Raises AssertionError, with its log, if it has ended."""
        port = {"nats": self.ports.nats, "control": self.ports.api, "door": self.ports.proxy}[program.name]

        async def ready() -> bool:
            assert program.running, f"{program.name} has ended:\n{program.log}"
            if program is self.nats:
                return await nats_serves(port, self._security.nats)
            return await accepts(port)

        await until(ready, longest=0.1)

    def another_control(self, name: str) -> tuple[Program, MeshPorts]:
        """One more replica of the control plane, yet to be started, and where it listens."""
        free = free_ports()
        ports = self.ports.model_copy(
            update={"api": free.api, "xds": free.xds, "dashboard": free.dashboard, "metrics": free.metrics}
        )
        command = [*control_command(ports), *self._lease, "--replica", name]
        environ = {**self.environ, **self._security.control_environment()}
        return Program(name, command, self.directory, environ), ports

    def sidecar(self, name: str, *arguments: str, command: Sequence[str] = ()) -> Program:
        """A sidecar of the instance `name`, yet to be started."""
        renewal = ("--renew-interval", str(self._lease_ttl / 4))
        options = ["--id", name, *self._lease, *renewal, *arguments]
        return Program(
            name,
            sidecar_command(self.ports, self.directory, options, command),
            self.directory,
            self.environ,
            partial(self.join_token, agent_type(arguments), name),
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


def agent_type(arguments: Sequence[str]) -> str | None:
    """What kind of agent the arguments of a sidecar say that it stands beside."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--type")
    given: str | None = parser.parse_known_args(arguments)[0].type
    return given


async def accepts(port: int) -> bool:
    """Whether somebody listens at a port."""
    try:
        _, writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        return False
    writer.close()
    await writer.wait_closed()
    return True
