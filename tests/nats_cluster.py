"""NATS of several servers, each as `weft kubernetes nats` runs it in its pod.

By default all listen on loopback, at ports of their own. With `addresses` each has a host of its own and the
usual ports; `commands` begin what runs there (`["ip", "netns", "exec", NAMESPACE]`).
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import psutil

from tests.freezing import freeze
from tests.server_process import HOST, ServerProcess
from weft.aio.children import Child, spawn
from weft.aio.guard import Guard
from weft.aio.ports import reserve_port
from weft.identity.tls import client_context
from weft.kubernetes.first_keys import CONTROL_USER, ISSUER
from weft.kubernetes.nats_configuration import CLIENT_PORT, CLUSTER_PORT, MONITOR_PORT
from weft.kubernetes.nats_server import HEALTH_PORT
from weft.local.nats_security import THIS_MACHINE, NatsSecurity, make_nats_security
from weft.model.node import Address
from weft.store.nats import NatsStore

_READY = "is ready"
_WEFT = "import sys; from weft.cli.main import run; sys.exit(run(sys.argv[1:]))"


@dataclass(frozen=True)
class Ports:
    """Where a server listens."""

    client: int = CLIENT_PORT
    cluster: int = CLUSTER_PORT
    monitor: int = MONITOR_PORT
    health: int = HEALTH_PORT


class NatsNode(ServerProcess):
    """One of the servers, with what supervises it."""

    program = "weft kubernetes nats"
    start_limit = 120.0

    def __init__(
        self, directory: Path, guard: Guard, name: str, host: str, ports: Ports, command: Sequence[str]
    ) -> None:
        """It keeps all it has in `directory`; `command` begins what runs on its host."""
        super().__init__(directory, guard)
        self.name = name
        self.host = host
        self.ports = ports
        self._prefix = command
        self._flags: tuple[str, ...] = ()
        self._lines_before = 0

    @property
    def url(self) -> str:
        """Where clients connect."""
        return f"tls://{self.address(self.ports.client)}"

    @property
    def health(self) -> str:
        """The URL below which it tells how it is."""
        return f"http://{self.address(self.ports.health)}"

    @property
    def log(self) -> str:
        """What it and its supervisor wrote, over all starts."""
        return self._log_text()

    @property
    def store(self) -> Path:
        """Where it keeps its streams."""
        return self._directory / "data"

    @property
    def running(self) -> bool:
        """Whether its supervisor runs."""
        return self._process is not None and self._process.running

    def address(self, port: int) -> Address:
        """A port of its host."""
        return Address(self.host, port)

    def configure(self, *flags: str) -> None:
        """Have it started with these flags."""
        self._flags = flags

    async def kill(self) -> None:
        """SIGKILL NATS itself, as the death of its host would, and wait for its supervisor's end."""
        if self.running:
            for each in self.servers():
                each.kill()
        await super().kill()

    async def terminate(self) -> int:
        """SIGTERM the supervisor, as a kubelet does, and wait for its end; its exit code."""
        process, self._process = self._process, None
        assert process is not None
        process.send(signal.SIGTERM)
        return await process.wait()

    async def ended(self) -> int:
        """Wait for the supervisor to end by itself; its exit code."""
        process, self._process = self._process, None
        assert process is not None
        return await process.wait()

    def kill_server(self) -> None:
        """SIGKILL NATS itself, and nothing else."""
        for each in self.servers():
            each.kill()

    async def kill_supervisor(self) -> None:
        """SIGKILL what supervises NATS, and wait for its end."""
        await super().kill()

    def freeze(self) -> None:
        """SIGSTOP NATS itself: connections stay open, nobody answers."""
        for each in self.servers():
            freeze(each.pid)

    def thaw(self) -> None:
        """SIGCONT it."""
        for each in self.servers():
            each.send_signal(signal.SIGCONT)

    async def _launch(self) -> Child:
        self._lines_before = len(self._log_text())
        with self._log.open("ab") as log:
            return await spawn(
                [*self._prefix, sys.executable, "-c", _WEFT, "kubernetes", "nats", *self._flags],
                guard=self._guard,
                environ={**os.environ, "PYTHONUNBUFFERED": "1"},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log.fileno(),
                stderr=asyncio.subprocess.STDOUT,
            )

    async def _takes_clients(self) -> bool:
        # Looked up in its log, as its host's ports may be out of reach for who runs the tests.
        return f"NATS server {self.name} {_READY}" in self._log_text()[self._lines_before :]

    def servers(self) -> list[psutil.Process]:
        """NATS itself, without its supervisor."""
        assert self._process is not None
        below = psutil.Process(self._process.pid).children(recursive=True)
        return [each for each in below if each.name() == "nats-server"]

    @property
    def _log(self) -> Path:
        return self._directory / "nats.log"

    def _log_text(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""


class NatsCluster:
    """The servers, which have the same keys; the mesh's roots come from the file `roots`."""

    def __init__(self, directory: Path, nodes: Sequence[NatsNode]) -> None:
        self.nodes = tuple(nodes)
        self.roots = directory / "roots.pem"
        """Written by whoever makes the mesh's roots: a control plane (its `bundle_file`), or a test."""
        hosts = {*THIS_MACHINE, *(each.host for each in nodes)}
        self.security: NatsSecurity = make_nats_security(directory / "keys", sorted(hosts))
        (self.security.directory / CONTROL_USER).write_text(self.security.control_user)
        (self.security.directory / ISSUER).write_text(self.security.issuer)
        for each in nodes:
            each.configure(*self._flags(each))

    @property
    def urls(self) -> list[str]:
        """Where clients connect."""
        return [each.url for each in self.nodes]

    async def start(self) -> None:
        """Start all, and wait until all are ready: none is before two have met."""
        await asyncio.gather(*(each.start() for each in self.nodes))

    async def kill(self) -> None:
        """SIGKILL all."""
        await asyncio.gather(*(each.kill() for each in self.nodes))

    async def control(
        self, *, timeout: float = 5.0, replicas: int = 3, only: NatsNode | None = None
    ) -> NatsStore:
        """A connection as the control plane has it; the caller's to close. `only` to one of the servers."""
        return await NatsStore.connect(
            self.urls if only is None else [only.url],
            name="control",
            timeout=timeout,
            replicas=replicas,
            tls=partial(client_context, self.security.roots.read_bytes(), self.security.control_credentials),
            credentials=self.security.control_seed,
        )

    def _flags(self, node: NatsNode) -> tuple[str, ...]:
        peers = [] if len(self.nodes) == 1 else [each.address(each.ports.cluster) for each in self.nodes]
        return (
            *("--name", node.name, "--listen", node.host, "--advertise", node.host),
            *("--keys", str(self.security.directory), "--roots", str(self.roots)),
            *("--store", str(node.store), *(f"--peer={each}" for each in peers)),
            *("--client-port", str(node.ports.client), "--cluster-port", str(node.ports.cluster)),
            *("--monitor-port", str(node.ports.monitor), "--health-port", str(node.ports.health)),
        )


@asynccontextmanager
async def nats_cluster(
    directory: Path, *, addresses: Sequence[str] = (), commands: Sequence[Sequence[str]] = (), size: int = 3
) -> AsyncIterator[NatsCluster]:
    """Running servers that keep all they have in `directory`; gone when the context is left.

    With `addresses` (and `commands`) one server at each of these, which need not be this machine's; else
    `size` of them on loopback.
    """
    async with Guard(grace=0.1) as guard:
        cluster = NatsCluster(directory, [*_nodes(directory, guard, addresses, commands, size)])
        try:
            await cluster.start()
            yield cluster
        finally:
            await cluster.kill()


def _nodes(
    directory: Path, guard: Guard, addresses: Sequence[str], commands: Sequence[Sequence[str]], size: int
) -> Sequence[NatsNode]:
    found = []
    for number in range(len(addresses) or size):
        name = f"nats-{number}"
        (directory / name).mkdir()
        host, ports = (addresses[number], Ports()) if addresses else (HOST, _ports())
        command = commands[number] if commands else ()
        found.append(NatsNode(directory / name, guard, name, host, ports, command))
    return found


def _ports() -> Ports:
    with ExitStack() as held:
        client, cluster, monitor, health = (held.enter_context(reserve_port(HOST)).port for _ in range(4))
        return Ports(client, cluster, monitor, health)
