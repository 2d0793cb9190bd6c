"""For tests: a control plane that serves the lists of `tools.mesh`, and clients of the official SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from prometheus_client import CollectorRegistry

from tests.control_access import MemoryAudit
from tests.control_api import served
from tests.pki import Pki
from weft.aio.cancellation import end
from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.tls import server_tls
from weft.controlplane.identities import Identities
from weft.controlplane.mcp.listing import Listing
from weft.controlplane.mcp.view import CatalogueView
from weft.controlplane.mcp.virtual_server import VirtualServer
from weft.controlplane.offers import OfferView
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.tokens import Tokens
from weft.identity.tls import client_context
from weft.model.agent import Instance, Status
from weft.model.manifest import parse_documents
from weft.model.offer import McpGeneration, McpOffer, Offer
from weft.model.operator import Scope
from weft.model.spiffe import SpiffeId, agent_id, control_id
from weft.registry.offers import Offers
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

PLANNER = agent_id("weft.local", "planner", "p-1")
"""Who asks, if nobody else does."""

_LEASE = 600.0  # seconds: nobody renews it


def tool(name: str, **fields: Any) -> Mapping[str, Any]:
    """A tool as a server lists it."""
    return {"name": name, "inputSchema": {"type": "object"}, **fields}


def offering(*tools: Mapping[str, Any], **lists: Any) -> Offer:
    """What a server of 2026 offers."""
    return Offer(mcp=McpOffer(McpGeneration.STATELESS, tools=tools, **lists))


@dataclass(frozen=True)
class Replica:
    """One replica's API."""

    port: int
    server: VirtualServer
    identities: Identities
    tokens: Tokens
    offers: OfferView

    @property
    def url(self) -> str:
        """Its MCP endpoint."""
        return f"https://127.0.0.1:{self.port}/mcp"


class ToolMesh:
    """A mesh in which nobody runs: instances and what they offer are written into its store."""

    def __init__(self, directory: Path, store: MemoryStore, pki: Pki) -> None:
        self._directory = directory
        self._store = store
        self._pki = pki
        self._stack = AsyncExitStack()
        self._registry: Registry
        self._offers: Offers
        self._resources: Resources
        self.replicas: list[Replica] = []
        """Those that run."""

    async def open(self) -> None:
        """Open what is kept."""
        self._registry = await Registry.open(self._store, lease_ttl=_LEASE)
        self._offers = await Offers.open(self._store)
        self._resources = await Resources.open(self._store)

    async def offer(
        self,
        type_: str,
        offer: Offer,
        *,
        id_: str = "one",
        version: str = "",
        since: float = 0.0,
    ) -> None:
        """Have an instance that offers something; one that is there has it from now on."""
        await self._offers.publish(f"{type_}.{id_}", offer)
        if await self._registry.get(type_, id_) is None:
            await self._registry.register(
                Instance(id_, type_, "127.0.0.1:1", Status.HEALTHY, version=version, started_at=since)
            )

    async def becomes(self, type_: str, id_: str, status: Status) -> None:
        """Have an instance's status be another."""
        entry = await self._registry.bucket.get(f"{type_}.{id_}")
        assert entry is not None
        await self._registry.bucket.put(entry.key, replace(entry.value, status=status), ttl=_LEASE)

    async def leave(self, type_: str, id_: str = "one") -> None:
        """Have an instance go."""
        await self._registry.bucket.delete(f"{type_}.{id_}")
        await self._offers.withdraw(f"{type_}.{id_}")

    async def declare(self, manifest: str) -> None:
        """Apply a manifest."""
        await self._resources.apply(parse_documents(manifest, "mesh.yaml"))

    @asynccontextmanager
    async def client(
        self,
        mode: str = "auto",
        *,
        who: SpiffeId = PLANNER,
        replica: int = 0,
        told: list[Any] | None = None,
        asking: Callable[[httpx2.Request], Awaitable[None]] | None = None,
    ) -> AsyncIterator[Client]:
        """An unmodified client that asks as the sidecar of `who` does.

        Messages of the server go into `told`; `asking` is called with every request of HTTP.
        """

        async def note(message: Any) -> None:
            if told is not None:
                told.append(message)

        async with self.http(who) as http:
            if asking is not None:
                http.event_hooks["request"].append(asking)
            transport = streamable_http_client(self.replicas[replica].url, http_client=http)
            async with Client(transport, mode=mode, message_handler=note) as client:
                yield client

    @asynccontextmanager
    async def http(
        self, who: SpiffeId | None = PLANNER, headers: Mapping[str, str] | None = None
    ) -> AsyncIterator[httpx2.AsyncClient]:
        """HTTP with the certificate of `who`."""
        credentials = None
        if who is not None:
            credentials = self._directory / "client.pem"
            credentials.write_bytes(b"".join(self._pki.svid(who)))
        context = client_context(self._pki.bundle().pem, credentials)
        async with httpx2.AsyncClient(verify=context, headers=headers, trust_env=False, timeout=60) as http:
            yield http

    async def token(self, scope: Scope = Scope.VIEWER) -> Mapping[str, str]:
        """Headers of an operator."""
        token, _ = await self.replicas[0].tokens.create(scope, scope, created_by="tests")
        return {"authorization": f"Bearer {token}"}

    async def environ(self, scope: Scope = Scope.VIEWER) -> Mapping[str, str]:
        """What the CLI finds it by, as an operator."""
        roots = self._directory / "roots.pem"
        roots.write_bytes(self._pki.bundle().pem)
        token, _ = await self.replicas[0].tokens.create(scope, scope, created_by="tests")
        api = self.replicas[0].url.removesuffix("/mcp")
        return {"WEFT_API": api, "WEFT_TOKEN": token, "WEFT_CA_FILE": str(roots)}

    async def start_replica(self) -> None:
        """Start one more replica, until the mesh ends."""
        self.replicas.append(await self._stack.enter_async_context(self._replica()))

    async def close(self) -> None:
        """Stop all replicas."""
        await self._stack.aclose()

    @asynccontextmanager
    async def _replica(self) -> AsyncIterator[Replica]:
        name = f"control-{len(self.replicas) + 1}"
        sidecars = await Sidecars.open(self._store)
        async with (
            View(self._registry) as view,
            ResourceView.follow(self._resources) as declared,
            Tokens.follow(self._store) as tokens,
            Identities.follow(self._store) as identities,
            OfferView.follow(self._offers, view) as offers,
        ):
            access = control_access(
                tokens,
                MemoryAudit(),
                bundles=self._pki.bundles,
                observer=name,
                revoked=identities.is_revoked,
            )
            server = VirtualServer(Listing(CatalogueView(offers, declared), declared, identities))
            context = ApiContext(
                view, self._resources, declared, sidecars, access, offers=offers, tools=server
            )
            tls = server_tls()
            tls.use(*self._pki.svid(control_id(self._pki.trust_domain, name)), self._pki.bundles())
            running = asyncio.create_task(server.run())
            async with served(create_api(context, CollectorRegistry()), tls) as port:
                yield Replica(port, server, identities, tokens, offers)
                server.end_streams()
            await end([running])


@asynccontextmanager
async def tool_mesh(directory: Path, *, replicas: int = 1) -> AsyncIterator[ToolMesh]:
    """A mesh with replicas that serve lists."""
    store = MemoryStore()
    mesh = ToolMesh(directory, store, Pki())
    await mesh.open()
    try:
        for _ in range(replicas):
            await mesh.start_replica()
        yield mesh
    finally:
        await mesh.close()
        await store.close()


def names(listed: Sequence[Any]) -> list[str]:
    """Those of tools or prompts."""
    return [each.name for each in listed]
