"""A sidecar's Envoy that follows the snapshots by xDS, and hosts outside the mesh for it to reach."""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
from prometheus_client import CollectorRegistry

from tests.binaries import ENVOY
from tests.pki import Pki
from tests.sds import write_secrets
from tests.xds import Log
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.controlplane.secrets import Secrets
from weft.controlplane.snapshots import Snapshots
from weft.controlplane.xds.server import AdsServer
from weft.model.agent import Instance
from weft.model.audit import AuditRecord
from weft.model.manifest import parse_documents
from weft.model.node import Address, Inbound, Node
from weft.model.resource import AnyResource
from weft.model.telemetry_wire import CLUSTER
from weft.native import SEARCH_PATH, stream_guard
from weft.sidecar.bootstrap import bootstrap
from weft.sidecar.denials import parse_denial
from weft.sidecar.system_roots import system_roots

HOST = "127.0.0.1"
LIMIT = 60.0
"""Seconds in which anything waited for happens."""


class OutsideHost:
    """A server outside the mesh, which keeps the head of every request it gets."""

    def __init__(self, pki: Pki | None = None, name: str = "") -> None:
        """With `pki` it speaks TLS, as the host `name`."""
        self.requests: list[str] = []
        self.port = 0
        self._pki = pki
        self._name = name

    @property
    def last(self) -> dict[str, str]:
        """The headers of the last request, names in lower case, and its first line as `""`."""
        first, *rest = self.requests[-1].split("\r\n")
        pairs = (line.partition(": ") for line in rest if line)
        return {"": first} | {name.lower(): value for name, _, value in pairs}

    @asynccontextmanager
    async def serving(self, directory: Path) -> AsyncIterator[OutsideHost]:
        """Within the context it serves, at `port`."""
        server = await asyncio.start_server(self._serve, HOST, 0, ssl=self._context(directory))
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()

    def _context(self, directory: Path) -> ssl.SSLContext | None:
        if self._pki is None:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        file = directory / f"{self._name}.pem"
        identity = "spiffe://elsewhere.example/agent/any/one"
        file.write_bytes(b"".join(self._pki.svid(identity, dns_names=[self._name], ip_addresses=[])))
        context.load_cert_chain(file)
        return context

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while not (self.requests and "connection: close" in self.requests[-1]):
                self.requests.append((await reader.readuntil(b"\r\n\r\n")).decode())
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\noutside")
                await writer.drain()
        writer.close()


class Caller:
    """An agent's sidecar: its Envoy, and what it is told."""

    def __init__(self, node: Node, secrets: Secrets, directory: Path) -> None:
        self.node = node
        self.directory = directory
        self.log = Log()
        self.snapshots = Snapshots([Address(HOST, 9)], secret_value=secrets.value)
        self.http = httpx.AsyncClient(proxy=f"http://{node.outbound}", timeout=LIMIT, trust_env=False)
        self.admin = httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(directory / "admin")))
        self._secrets = secrets
        self._resources: dict[str, AnyResource] = {}
        self.instances: list[Instance] = []
        """Who is running, from the next `declare` on."""

    async def declare(self, manifest: str, *, without: Iterable[str] = ()) -> None:
        """Apply a manifest as the control plane would, and wait until Envoy has taken over what it means."""
        for key in without:
            del self._resources[key]
        for document in parse_documents(manifest) if manifest else ():
            stored = self._resources.get(document.resource.key)
            self._resources[document.resource.key] = self._secrets(document, stored)
        self.snapshots.update(self.instances, self._resources.values())
        await self.synced()

    async def forget(self) -> None:
        """Take back all that was declared, and whoever runs."""
        self.instances = []
        await self.declare("", without=list(self._resources))

    @property
    def output(self) -> Path:
        """The file with what its Envoy has written to its standard output."""
        return self.directory / "stdout"

    async def denials(self, number: int) -> list[AuditRecord]:
        """What the sidecar would write into the audit, once that is so much."""
        found: list[AuditRecord] = []

        async def enough() -> bool:
            lines = self.output.read_text().splitlines()
            records = (parse_denial(each, callee="", observer=self.node.key, own="me") for each in lines)
            found[:] = [each for each in records if each is not None]
            return len(found) >= number

        async with asyncio.timeout(LIMIT):
            await until(enough)
        return found

    async def synced(self) -> None:
        """Wait until Envoy has taken over what there is now."""
        async with asyncio.timeout(LIMIT):
            while ("synced", self.node.key, str(self.snapshots.generation)) not in self.log.events:
                await self.log.news()

    async def raw(self, request: bytes) -> str:
        """The answer to a request that is sent as it stands; ends with the connection."""
        async with asyncio.timeout(LIMIT):
            reader, writer = await asyncio.open_connection(HOST, self.node.outbound.port)
            try:
                writer.write(request)
                answer = await reader.read()
            finally:
                writer.transport.abort()
        return answer.decode(errors="replace")


@asynccontextmanager
async def caller(
    agent_type: str | None,
    secrets: Secrets,
    pki: Pki | None = None,
    *,
    guarded: bool = False,
    agent: int = 9,
    telemetry: int | None = None,
    gateway: bool = False,
    roots: Path | None = None,
) -> AsyncIterator[Caller]:
    """The sidecar of an agent of this type, or of none; its Envoy is gone when the context is left.

    `pki` gives it its identity; by default one that nobody else has. `guarded`: it has the stream guard.
    `agent`: the port of the agent itself; `telemetry`: that at which spans are taken, without TLS.
    `gateway`: whether it can take callers from outside the mesh. `roots`: whom its machine trusts; by default
    whom this one does.
    """
    with (
        TemporaryDirectory(prefix="wt-") as name,
        reserve_port(HOST) as outbound,
        reserve_port(HOST) as inbound,
        reserve_port(HOST) as outside,
    ):
        addresses = [Address(HOST, each.port) for each in (outbound, inbound)]
        listening = Inbound(agent_type, addresses[1], Address(HOST, agent)) if agent_type else None
        node = Node("c-1", addresses[0], listening, stream_guard=guarded)
        if gateway:
            node = replace(node, outside=Address(HOST, outside.port))
        result = Caller(node, secrets, Path(name))
        ads = AdsServer(result.snapshots, observer=result.log, registry=CollectorRegistry())
        async with result.http, result.admin, ads, _envoy(result, ads.port, pki or Pki(), telemetry, roots):
            pushing = asyncio.create_task(ads.run())
            await _listening(result)
            yield result
            pushing.cancel()


@asynccontextmanager
async def _envoy(
    caller: Caller, xds_port: int, pki: Pki, telemetry: int | None, roots: Path | None
) -> AsyncIterator[None]:
    """The caller's Envoy with the sidecars' own bootstrap, but for the TLS towards the control plane."""
    config = bootstrap(
        caller.node,
        xds=[Address(HOST, xds_port)],
        admin_socket=caller.directory / "admin",
        max_connections=100,
        system_roots=roots or system_roots({}),
    )
    for cluster in config["static_resources"]["clusters"]:
        cluster.pop("transport_socket", None)
        if cluster["name"] == CLUSTER and telemetry is not None:
            [endpoint] = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
            endpoint["endpoint"]["address"]["socket_address"]["port_value"] = telemetry
    write_secrets(caller.directory, pki, f"spiffe://weft.local/agent/{caller.node.key.replace('.', '/')}")
    file = caller.directory / "envoy.json"
    file.write_text(json.dumps(config))
    options = ("--disable-hot-restart", "--concurrency", "1", "--log-level", "warning")
    with caller.output.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *(ENVOY, "-c", file, *options, "--file-flush-interval-msec", "50"),
            cwd=caller.directory,
            env={SEARCH_PATH: str(library.parent)} if (library := stream_guard()) else {},
            stdout=output,
            stderr=sys.stderr,
        )
    try:
        yield
    finally:
        process.kill()
        await process.wait()


async def _listening(caller: Caller) -> None:
    async def accepts() -> bool:
        try:
            _, writer = await asyncio.open_connection(HOST, caller.node.outbound.port)
        except OSError:
            return False
        writer.close()
        return True

    async with asyncio.timeout(LIMIT):
        await until(accepts)
