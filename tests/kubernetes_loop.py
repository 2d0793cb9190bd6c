"""Reconcilers of the controller as they run in it, for tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import cast

from prometheus_client import CollectorRegistry

from tests.kubernetes_clusters import ClusterApi
from tests.kubernetes_documents import Document
from weft.aio.poll import until
from weft.kubernetes.controller.conditions import Reports
from weft.kubernetes.controller.kinds import EVENT, ClusterKind, Key
from weft.kubernetes.controller.loop import LoopMetrics, Reconciler, run_loop
from weft.kubernetes.controller.mesh import Mesh
from weft.kubernetes.controller.parts import Parts

SYSTEM = "weft-system"
LIMIT = 60.0
"""Seconds for anything to come about."""


def parts_without_mesh(api: ClusterApi) -> Parts:
    """What reconcilers work with that have nothing to do with the mesh themselves."""
    reports = Reports(api.cluster, "controller-0")
    return Parts(api.cluster, cast("Mesh", None), reports, SYSTEM, "some-cluster")


@asynccontextmanager
async def looping(*reconcilers: Reconciler) -> AsyncIterator[None]:
    """They run until the context is left."""
    running = asyncio.create_task(run_loop(reconcilers, LoopMetrics(CollectorRegistry())))
    try:
        yield
    finally:
        running.cancel()
        await asyncio.wait([running])


async def holds(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it does; raises TimeoutError."""
    async with asyncio.timeout(LIMIT):
        await until(condition)


async def there(
    api: ClusterApi, kind: ClusterKind, key: Key, matches: Callable[[Document], bool] = bool
) -> Document:
    """An object, once it is there and as it should be."""
    found: list[Document] = []

    async def asked() -> bool:
        document = await api.cluster.get(kind, key)
        found.extend([document] if document is not None else [])
        return document is not None and matches(document)

    await holds(asked)
    return found[-1]


async def gone(api: ClusterApi, kind: ClusterKind, key: Key) -> None:
    """Wait until an object is not there."""

    async def asked() -> bool:
        return await api.cluster.get(kind, key) is None

    await holds(asked)


async def events(api: ClusterApi, key: Key) -> list[tuple[str, str]]:
    """Type and reason of what was told of an object."""
    listing = await api.cluster.list(EVENT, namespace=key.namespace)
    about = (each for each in listing.items if each["regarding"]["name"] == key.name)
    return [(each["type"], each["reason"]) for each in about]
