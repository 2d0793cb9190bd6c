"""The control plane's API for tests of the CLI: over TLS, as the CLI wants it, with its store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from tests.control_access import MemoryAudit
from tests.pki import Pki
from weft.aio.poll import until
from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.tls import ServerTls, server_config, server_tls
from weft.controlplane.contexts import TenantContexts
from weft.controlplane.llm.standing import Standing
from weft.controlplane.offers import OfferView
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.tokens import Tokens
from weft.model.manifest import parse_documents
from weft.model.operator import Scope
from weft.model.spiffe import control_id
from weft.registry.offers import Offers
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Preparation, Resources, without_secrets
from weft.resources.view import ResourceView
from weft.sdk.server import bind
from weft.store.memory import MemoryStore


@dataclass(frozen=True)
class ServedApi:
    """A running API."""

    store: MemoryStore
    resources: Resources
    standing: Standing
    tokens: Tokens
    url: str
    roots: Path

    async def declare(self, manifest: str) -> None:
        """Apply a manifest."""
        await self.resources.apply(parse_documents(manifest, "mesh.yaml"))

    async def environ(self, scope: Scope = Scope.VIEWER) -> dict[str, str]:
        """What the CLI finds it by, as somebody with a token of that scope."""
        token, _ = await self.tokens.create(scope, scope, created_by="tests")
        return {"WEFT_API": self.url, "WEFT_TOKEN": token, "WEFT_CA_FILE": str(self.roots)}


@asynccontextmanager
async def served_api(directory: Path, prepare: Preparation = without_secrets) -> AsyncIterator[ServedApi]:
    """Serve until the context is left; the roots are written into `directory`. `prepare` seals Secrets."""
    store, pki = MemoryStore(), Pki()
    roots = directory / "roots.pem"
    roots.write_bytes(pki.bundle().pem)
    registry, resources = await Registry.open(store), await Resources.open(store, prepare)
    sidecars, standing = await Sidecars.open(store), await Standing.open(store)
    async with (
        View(registry) as view,
        ResourceView.follow(resources) as declared,
        OfferView.follow(await Offers.open(store), view) as offers,
        Tokens.follow(store) as tokens,
    ):
        access = control_access(tokens, MemoryAudit(), bundles=pki.bundles, observer="control-1")
        contexts = await TenantContexts.open(store, author="control-1")
        context = ApiContext(
            view,
            resources,
            declared,
            sidecars,
            access,
            standing=standing,
            contexts=contexts,
            offers=offers,
        )
        tls = server_tls()
        tls.use(*pki.svid(control_id(pki.trust_domain, "control-1")), pki.bundles())
        async with served(create_api(context, CollectorRegistry()), tls) as port:
            yield ServedApi(store, resources, standing, tokens, f"https://127.0.0.1:{port}", roots)
    await store.close()


class _Server(uvicorn.Server):
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def served(app: ASGIApp, tls: ServerTls) -> AsyncIterator[int]:
    """The port at which `app` is served over TLS."""
    listener = bind("127.0.0.1", 0)
    server = _Server(server_config(app, tls, stop_timeout=1))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    async with asyncio.timeout(30):
        await until(lambda: _started(server))
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await serving


async def _started(server: uvicorn.Server) -> bool:
    return server.started
