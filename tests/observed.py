"""A control plane's API with telemetry, over a store in memory, at a plain address."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
from prometheus_client import CollectorRegistry

from tests.control_access import admin_access
from weft.aio.cancellation import end
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.telemetry.opening import Telemetry, open_telemetry
from weft.model.manifest import parse_documents
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.sdk.server import bind, serving_http
from weft.store.bucket import Store
from weft.store.memory import MemoryStore


@dataclass(frozen=True)
class Observed:
    """What runs."""

    url: str
    http: httpx.AsyncClient
    """Of an administrator."""
    telemetry: Telemetry
    context: ApiContext
    resources: Resources
    declared: ResourceView
    metrics: CollectorRegistry

    async def declare(self, manifest: str) -> None:
        """Apply a manifest, and wait until it is heard of."""
        seen = self.declared.generation
        await self.resources.apply(parse_documents(manifest, "mesh.yaml"))
        await self.declared.changed_since(seen)


@asynccontextmanager
async def observed(
    settings: ControlPlaneSettings | None = None, store: Store | None = None
) -> AsyncIterator[Observed]:
    """Serve until the context is left."""
    kept, tokens = store or MemoryStore(), MemoryStore()
    metrics = CollectorRegistry()
    registry, resources, sidecars = (
        await Registry.open(kept),
        await Resources.open(kept),
        await Sidecars.open(kept),
    )
    async with (
        View(registry) as view,
        ResourceView.follow(resources) as declared,
        admin_access(tokens) as admin,
        open_telemetry(
            settings or ControlPlaneSettings(), kept, declared, metrics, revoked=lambda _: False
        ) as telemetry,
    ):
        context = ApiContext(view, resources, declared, sidecars, admin.access, telemetry=telemetry)
        listener = bind("127.0.0.1", 0)
        host, port = listener.getsockname()
        url = f"http://{host}:{port}"
        running = asyncio.create_task(telemetry.run())
        try:
            async with (
                serving_http(create_api(context, metrics), listener),
                httpx.AsyncClient(base_url=url, headers=admin.headers) as http,
            ):
                yield Observed(url, http, telemetry, context, resources, declared, metrics)
        finally:
            await end([running])
    if store is None:
        await kept.close()
