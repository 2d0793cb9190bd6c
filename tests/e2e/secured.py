"""A mesh to be attacked: what an attacker could get hold of, and what the audit says of the attempt."""

from __future__ import annotations

import asyncio
import json
import math
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from tests.e2e.leftovers import Scope
from tests.e2e.meshes import PROGRAMS, RunningMesh, eventually
from tests.e2e.weft_cli import Weft, weft_user
from tests.pki import Pki
from tests.xds import AdsClient

from weft import Denied, Mesh, MeshError
from weft.controlplane.ca.shared_state import BUCKET, KEY
from weft.controlplane.ca.state import open_state
from weft.controlplane.sealing import sealer_from
from weft.controlplane.xds.server import METHOD, SERVICE
from weft.identity.bundle import TrustBundles
from weft.identity.tls import client_context
from weft.local.mesh import LocalMesh
from weft.local.ports import free_ports
from weft.model.local_state import mesh_directory
from weft.model.node import Address, Inbound, Node, parse_address
from weft.model.spiffe import SpiffeId
from weft.model.subjects import inbox_prefix
from weft.sidecar.envoy import admin_socket
from weft.store.nats import NatsStore

LIMIT = 30.0
"""Seconds in which anything waited for happens."""

Record = dict[str, Any]
"""One of the audit, as the API gives it."""


class SecuredMesh(RunningMesh):
    """A running mesh, its user's command line, and ways into its parts that only an attacker would take."""

    def __init__(self, local: LocalMesh, home: Path, user: Weft) -> None:
        super().__init__(local, home, Scope(user.temporary))
        self.weft = user
        self.since = time.time()

    @contextmanager
    def attack(self) -> Iterator[None]:
        """Within the context, `audited` looks at what is written down from its beginning."""
        # Envoy's times are in whole milliseconds.
        self.since = math.floor(time.time() * 1000) / 1000
        yield

    async def cli(self, *arguments: str) -> str:
        """A command that must succeed; its output."""
        return await asyncio.to_thread(self.weft.ok, *arguments)

    async def audited(self, **expected: str) -> Record:
        """The first record since the attack began whose fields hold all of `expected`; waits for it."""
        found: list[Record] = []

        async def written() -> bool:
            found[:] = [each for each in await self.recent() if _holds(each, expected)]
            return bool(found)

        async def told() -> str:
            return "\n".join(map(str, (await self.api.audit(500))[-15:]))

        try:
            await eventually(written, lambda: "")
        except AssertionError:
            raise AssertionError(f"the audit has no {expected}, but\n{await told()}") from None
        return found[0]

    async def recent(self) -> list[Record]:
        """What was written down since the attack began."""
        return [each for each in await self.api.audit(500) if each["time"] >= self.since]

    def client_of(self, agent_type: str) -> Mesh:
        """The SDK's client in the place of an agent: it calls through that one's sidecar."""
        return Mesh(proxy=self.surroundings(agent_type)["WEFT_PROXY"])

    def proxy(self, agent_type: str) -> Address:
        """An agent's way out."""
        return parse_address(self.surroundings(agent_type)["WEFT_PROXY"].removeprefix("http://"))

    def surroundings(self, agent_type: str) -> Mapping[str, str]:
        """The environment of the program beside an agent's only sidecar."""
        return self.program(f"{agent_type}-1").environ()

    async def inbound(self, agent_type: str) -> Address:
        """Where the sidecar of an agent's only instance takes calls."""
        return parse_address((await self.api.agent(agent_type, f"{agent_type}-1"))["endpoint"])

    async def node(self, agent_type: str) -> Node:
        """What the sidecar of an agent's only instance says to be when it asks for configuration."""
        agent = Address("127.0.0.1", int(self.surroundings(agent_type)["PORT"]))
        inbound = Inbound(agent_type, await self.inbound(agent_type), agent)
        return Node(f"{agent_type}-1", self.proxy(agent_type), inbound)

    def runtime_directory(self, name: str) -> Path:
        """Where a sidecar keeps its certificate and key."""
        command = self.envoy(name).cmdline()
        return Path(command[command.index("--config-path") + 1]).parent

    def credentials(self, name: str) -> Path:
        """A sidecar's certificate and key, as a program of the same user could steal them."""
        return self.runtime_directory(name) / "svid.pem"

    async def trust(self) -> TrustBundles:
        """What members of the mesh trust."""
        return await self.api.trust_bundles()

    @asynccontextmanager
    async def nats(self, credentials: Path, identity: SpiffeId) -> AsyncIterator[NatsStore]:
        """A connection to NATS with some member's certificate and key."""
        roots = (self.home / "identity" / "nats" / "roots.pem").read_bytes()
        store = await NatsStore.connect(
            [self.local.state.nats_url],
            name="attacker",
            timeout=10.0,
            tls=partial(client_context, roots, credentials),
            inbox_prefix=inbox_prefix(identity),
        )
        try:
            yield store
        finally:
            await store.close()

    async def insider(self) -> Pki:
        """The mesh's own authority, by which an attacker could make certificates that look real."""
        nats = self.home / "identity" / "nats"
        store = await NatsStore.connect(
            [self.local.state.nats_url],
            name="insider",
            tls=partial(client_context, (nats / "roots.pem").read_bytes(), nats / "control.pem"),
            credentials=nats / "control.seed",
        )
        try:
            entry = await (await store.bucket(BUCKET, _Bytes())).get(KEY)
        finally:
            await store.close()
        assert entry is not None
        state = open_state(entry.value, sealer_from(f"file:{self.home / 'identity' / 'sealing.key'}"))
        stolen = Pki(state.trust_domain)
        stolen.root, stolen.root_key = state.root.certificate, state.root.key
        stolen.intermediate, stolen.intermediate_key = state.issuing.certificate, state.issuing.key
        return stolen

    @property
    def api_address(self) -> Address:
        """Where the control plane's API is."""
        return parse_address(self.local.api_url.removeprefix("https://"))

    @asynccontextmanager
    async def policy(self, name: str, spec: str) -> AsyncIterator[None]:
        """Within the context, an AccessPolicy is declared; by the command line."""
        file = self.weft.write(f"{name}.yaml", access_policy(name, spec))
        await self.cli("apply", "-f", str(file))
        try:
            yield
        finally:
            await self.cli("delete", "-f", str(file))

    async def allows(self, caller: str, callee: str) -> None:
        """Wait until calls of one agent to another are answered."""
        errors: list[MeshError] = []

        async def answered() -> bool:
            try:
                await client.request(callee, "headers")
            except MeshError as error:
                errors.append(error)
                return False
            return True

        async with self.client_of(caller) as client:
            await eventually(answered, lambda: f"{caller} still cannot call {callee}: {errors[-1]}")

    async def denies(self, caller: str, callee: str) -> Denied:
        """Wait until calls of one agent to another are denied; how."""
        errors: list[Denied] = []

        async def refused() -> bool:
            try:
                await client.request(callee, "headers")
            except Denied as error:
                errors.append(error)
            return bool(errors)

        async with self.client_of(caller) as client:
            await eventually(refused, lambda: f"{caller} can still call {callee}", pause=0.02)
        return errors[0]

    async def config_dump(self, name: str) -> str:
        """What the Envoy of a sidecar tells of its configuration."""
        transport = httpx.AsyncHTTPTransport(uds=str(admin_socket(self.runtime_directory(name))))
        async with httpx.AsyncClient(transport=transport, timeout=LIMIT) as admin:
            answer = await admin.get("http://envoy/config_dump?include_eds")
        return answer.raise_for_status().text

    def family(self) -> list[psutil.Process]:
        """All processes of the mesh."""
        return self.weft.processes()

    def files(self) -> list[Path]:
        """Every file of the mesh: data, logs, what sidecars keep."""
        found = []
        for top in (self.home, self.weft.temporary):
            found += [each for each in top.rglob("*") if each.is_file() and not each.is_symlink()]
        return found


@asynccontextmanager
async def secured_mesh(
    manifest: str, *, environ: Mapping[str, str] | None = None
) -> AsyncIterator[SecuredMesh]:
    """A mesh with everything in `manifest` healthy, which is its user's default one."""
    with weft_user() as user:
        home = mesh_directory(user.environ, "default")
        local = LocalMesh(
            home,
            ports=free_ports(),
            manifest=manifest,
            working_directory=PROGRAMS,
            environ={**user.environ, **(environ or {})},
        )
        async with local:
            await local.wait_healthy(timeout=180)
            yield SecuredMesh(local, home, user)


async def knock(address: Address, context: ssl.SSLContext | None, request: bytes) -> bytes:
    """What a port answers to a request, sent with or without TLS; nothing if it hangs up.

    The request must be one after which the connection is closed.
    """
    async with asyncio.timeout(LIMIT):
        try:
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=context)
            writer.write(request)
            answer = await reader.read()
        except (ssl.SSLError, ConnectionError):
            return b""
        writer.transport.abort()
        return answer


def stranger(credentials: Path | None = None) -> ssl.SSLContext:
    """That of a client that believes any server, and shows this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if credentials is not None:
        context.load_cert_chain(credentials)
    return context


def access_policy(name: str, spec: str) -> str:
    """The manifest of an AccessPolicy."""
    return f"""
apiVersion: weft.dev/v1alpha1
kind: AccessPolicy
metadata: {{name: {name}}}
spec: {{{spec}}}
"""


def post(kind: str, path: str = "/rpc", **headers: str) -> bytes:
    """A request to the vault's agent as it stands on the wire."""
    body = json.dumps({"kind": kind, "payload": {}})
    lines = [
        f"POST {path} HTTP/1.1",
        "host: vault.mesh",
        "content-type: application/json",
        "connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", body]).encode()


@asynccontextmanager
async def ads_stream(address: str, credentials: grpc.ChannelCredentials) -> AsyncIterator[AdsClient]:
    """A stream of configuration, as a sidecar opens one."""
    async with grpc.aio.secure_channel(address, credentials) as channel:
        method: Any = channel.stream_stream
        call = method(f"/{SERVICE}/{METHOD}")()
        try:
            yield AdsClient(call)
        finally:
            call.cancel()


class _Bytes:
    """Bytes as they are."""

    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


def _holds(record: Record, expected: Mapping[str, str]) -> bool:
    with suppress(KeyError):
        return all(text in record[name] for name, text in expected.items())
    return False
