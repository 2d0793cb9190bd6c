"""A cluster's API for tests: the stand-in, and the real kube-apiserver where there is one.

A suite takes both, by a fixture of its own::

    @pytest_asyncio.fixture(scope="module", loop_scope="module", params=CLUSTERS)
    async def api(request, tmp_path_factory):
        async with hosted(cluster_api(request.param, tmp_path_factory.mktemp("cluster"))) as api:
            yield api
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

from tests.kubernetes_documents import Document
from tests.kubernetes_server import KubernetesServer, kubernetes_server, missing
from tests.kubernetes_stand_in import TOKEN, KubernetesStandIn
from weft.aio.poll import until
from weft.errors import Conflict, NotFound
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.kinds import CUSTOM_KINDS, NAMESPACE, ClusterKind, Key, key_of
from weft.kubernetes.custom_resources import custom_resource_definitions

CLUSTERS = [
    "stand-in",
    pytest.param("kube-apiserver", marks=pytest.mark.skipif(missing() is not None, reason=str(missing()))),
]
"""Parameters of a fixture: which of them."""

DEFINITION = ClusterKind(
    "apiextensions.k8s.io", "v1", "CustomResourceDefinition", "customresourcedefinitions", namespaced=False
)


@dataclass(frozen=True)
class ClusterApi:
    """A running API server that has Weft's custom resources."""

    cluster: Cluster
    """A client that may do everything."""
    stand_in: KubernetesStandIn | None
    """None where it is a real one."""
    server: KubernetesServer | None
    """None where it is the stand-in."""

    async def namespace(self, name: str) -> str:
        """Make a namespace, unless it is there."""
        if await self.cluster.get(NAMESPACE, Key("", name)) is None:
            await self.cluster.create(NAMESPACE, {"metadata": {"name": name}})
        return name

    async def declare(self, kind: str, name: str, spec: Document, namespace: str = "default") -> Document:
        """Have a custom resource be as given, as by `kubectl apply --server-side`; it is returned."""
        document = {
            "apiVersion": CUSTOM_KINDS[kind].api_version,
            "kind": kind,
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        }
        return await self.cluster.apply(CUSTOM_KINDS[kind], document, manager="tests")

    async def found(self, kind: str, name: str, namespace: str = "default") -> Document | None:
        """A custom resource as it stands; None if there is none."""
        return await self.cluster.get(CUSTOM_KINDS[kind], Key(namespace, name))

    async def clear(self) -> None:
        """Delete all custom resources."""
        for kind in CUSTOM_KINDS.values():
            try:
                listing = await self.cluster.list(kind)
            except NotFound:
                continue
            for each in listing.items:
                await self.cluster.delete(kind, key_of(each))


@asynccontextmanager
async def cluster_api(which: str, directory: Path) -> AsyncIterator[ClusterApi]:
    """One of CLUSTERS, until the context is left."""
    if which == "stand-in":
        async with (
            KubernetesStandIn().serving() as stand_in,
            Cluster(stand_in.url, trust=False, token=lambda: TOKEN) as cluster,
        ):
            await define(cluster)
            yield ClusterApi(cluster, stand_in, None)
        return
    async with (
        kubernetes_server(directory) as server,
        Cluster(server.url, trust=server.trust(), token=lambda: server.token) as cluster,
    ):
        await define(cluster)
        yield ClusterApi(cluster, None, server)


async def define(cluster: Cluster) -> None:
    """Have the cluster serve Weft's custom resources, those that it does not have yet."""
    for definition in deepcopy(_definitions()):
        with suppress(Conflict):
            await cluster.create(DEFINITION, definition)
    async with asyncio.timeout(120):
        for kind in CUSTOM_KINDS.values():
            await until(lambda kind=kind: _served(cluster, kind))  # type: ignore[misc]


@cache
def _definitions() -> list[Document]:
    # Making them takes long, and a process of tests wants them often.
    return custom_resource_definitions()


async def _served(cluster: Cluster, kind: ClusterKind) -> bool:
    try:
        await cluster.list(kind)
    except NotFound:
        return False
    return True
