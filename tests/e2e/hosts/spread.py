"""A mesh over several hosts, each part of which is started as its pod starts it.

On each server host are one NATS server and one replica of the control plane. Agents, wherever they are put,
prove themselves by tokens of their service accounts. On a host of its own is the door, through which tests
call; whoever uses this has to be on that host, too.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.cluster import ISSUER, Cluster
from tests.e2e.hosts.network import Host
from tests.e2e.meshes import eventually
from tests.nats_cluster import NatsCluster, nats_cluster
from tests.processes import Program

from weft import MeshError
from weft.aio.private_file import write_private
from weft.controlplane.sealing import new_sealing_key
from weft.local.control import ControlApi
from weft.model.operator import new_token
from weft.store.nats_client import FAILURES

LEASE = 30.0
"""Seconds: longer than NATS may take to elect who leads in place of a server whose host is gone."""
PATIENCE = 150.0
"""Seconds in which whatever is waited for happens, on a machine that may be busy."""

_API, _XDS, _METRICS, _PROXY = 7400, 7401, 7405, 7480
_NAMESPACE = "crew"
_SEALING_KEY = "WEFT_TEST_SEALING_KEY"


class SpreadMesh:
    """The mesh's parts, by host and by name. Made by `spread_mesh`."""

    proxy_url = f"http://127.0.0.1:{_PROXY}"
    """The door's."""

    def __init__(
        self,
        directory: Path,
        servers: Sequence[Host],
        outside: Host,
        nats: NatsCluster,
        environ: Mapping[str, str],
    ) -> None:
        self.directory = directory
        self.servers = servers
        self.nats = nats
        self._outside = outside
        self._environ = environ
        self._pods = Cluster(directory)
        self._token = new_token()
        write_private(directory / "token", f"{self._token}\n".encode())
        sealing_key = {_SEALING_KEY: new_sealing_key()}
        self.controls = {each.name: self._control(each, sealing_key) for each in servers}
        self.sidecars: dict[str, Program] = {}

    def api(self, host: Host) -> ControlApi:
        """The API of the replica there; use as an async context manager."""
        return ControlApi(f"https://{host.address}:{_API}", token=self._token, roots=self.nats.roots)

    async def start(self) -> None:
        """Start all replicas of the control plane at once, and the door."""
        for each in self.controls.values():
            each.start()
        for host in self.servers:
            await self._serves(host)
        async with self.api(self.servers[0]) as api:
            made = await api.ask("POST", "/v1/join-tokens", {"type": None, "instance": "door", "labels": {}})
        arguments = [f"--outbound-port={_PROXY}"]
        self._start_sidecar(self._outside, "door", arguments, {"WEFT_JOIN_TOKEN": made["token"]})

    def run(self, host: Host, kind: str, name: str, command: Sequence[str], *options: str) -> None:
        """Start an instance of type `kind`, which is `command`, and its sidecar."""
        token = self.directory / f"{name}.token"
        token.write_text(self._pods.pod_token(_NAMESPACE, kind, name))
        own = (
            f"--type={kind}",
            f"--zone={host.name}",
            f"--bind={host.address}",
            f"--service-account-token={token}",
            "--health-interval=1",
            "--drain-grace=0",
        )
        self._start_sidecar(host, name, [*own, *options, "--", *command], {})

    async def knows(self, host: Host, *instances: str) -> None:
        """Wait until the replica at `host` knows just these as instances that get calls."""
        found: set[str] = set()

        async def so() -> bool:
            found.clear()
            found.update(await self._healthy(host))
            return found == {*instances}

        await eventually(so, lambda: f"{host.name} knows {found}\n{self.logs()}", limit=PATIENCE)

    async def copies(self) -> dict[str, int]:
        """How many servers have each stream whole; empty if NATS cannot say."""
        try:
            store = await self.nats.control()
        except MeshError:
            return {}
        try:
            client = await store.connection.client()
            streams = await store.connection.jetstream(client).streams_info()
        except FAILURES:
            return {}
        finally:
            await store.close()
        return {
            str(each.config.name): 1
            + sum(bool(peer.current) and not peer.offline for peer in each.cluster.replicas or [])
            for each in streams
            if each.cluster is not None and each.cluster.leader
        }

    def logs(self) -> str:
        """The end of what each part wrote."""
        return "\n".join(f"--- {each.name}\n{each.log[-3000:]}" for each in self._programs())

    async def stop(self) -> None:
        """Stop everything."""
        for each in self._programs():
            if each.running:
                each.send(signal.SIGTERM)
        for each in self._programs():
            await asyncio.to_thread(each.stop)

    async def _serves(self, host: Host) -> None:
        program = self.controls[host.name]

        async def ready() -> bool:
            if not program.running:  # a machine that is very busy: kubelets start it again, too
                program.start()
            if not self.nats.roots.exists():
                return False
            async with self.api(host) as api:
                return await api.ready()

        await eventually(ready, lambda: program.log, limit=PATIENCE)

    async def _healthy(self, host: Host) -> set[str]:
        try:
            async with self.api(host) as api:
                return {each["id"] for each in await api.agents([("status", "healthy")])}
        except MeshError:
            return set()

    def _programs(self) -> list[Program]:
        return [*self.controls.values(), *self.sidecars.values()]

    def _control(self, host: Host, sealing_key: Mapping[str, str]) -> Program:
        first = host is self.servers[0]
        settings = {
            "nats": json.dumps(self.nats.urls),
            "nats_replicas": str(len(self.servers)),
            "host": host.address,
            "api_port": str(_API),
            "xds_port": str(_XDS),
            "dashboard_port": "0",
            "metrics_host": host.address,
            "metrics_port": str(_METRICS),
            "replica": f"weft-control-{host.name}",
            "sealing_key": f"env:{_SEALING_KEY}",
            "operator_token_file": str(self.directory / "token"),
            # Hosts share a file system here, so one of them tells all.
            **({"bundle_file": str(self.nats.roots)} if first else {}),
            "service_account_issuer": ISSUER,
            "service_account_keys_file": str(self._pods.keys),
            "lease_ttl": f"{LEASE:g}",
        }
        variables = {f"WEFT_CONTROL_{name.upper()}": value for name, value in settings.items()}
        return Program(
            f"control-{host.name}",
            host.runs([sys.executable, "-m", "weft.controlplane"]),
            self.directory,
            {**self._environ, **sealing_key, **self.nats.security.control_environment(), **variables},
        )

    def _start_sidecar(
        self, host: Host, name: str, arguments: Sequence[str], admission: Mapping[str, str]
    ) -> None:
        mesh = [
            f"--id={name}",
            f"--metrics-host={host.address}",
            f"--nats={','.join(self.nats.urls)}",
            f"--xds={','.join(f'{each.address}:{_XDS}' for each in self.servers)}",
            f"--api={','.join(f'https://{each.address}:{_API}' for each in self.servers)}",
            f"--trust-bundle={self.nats.roots}",
            f"--lease-ttl={LEASE:g}",
            f"--start-timeout={PATIENCE:g}",
        ]
        command = host.runs([sys.executable, "-m", "weft.sidecar", *mesh, *arguments])
        program = Program(name, command, self.directory, {**self._environ, **admission})
        self.sidecars[name] = program
        program.start()


@asynccontextmanager
async def spread_mesh(
    directory: Path, servers: Sequence[Host], outside: Host, environ: Mapping[str, str]
) -> AsyncIterator[SpreadMesh]:
    """A mesh without agents, with NATS and the control plane on all of `servers`; nothing of it is left."""
    cluster = nats_cluster(
        directory,
        addresses=[each.address for each in servers],
        commands=[each.runs([]) for each in servers],
    )
    async with cluster as nats:
        mesh = SpreadMesh(directory, servers, outside, nats, environ)
        try:
            await mesh.start()
            yield mesh
        finally:
            await mesh.stop()
