"""A cluster, a mesh, and a controller between them, for tests."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from tests.control_api import ServedApi, served_api
from tests.kubernetes_clusters import ClusterApi
from tests.kubernetes_documents import Document
from weft.aio.poll import until
from weft.aio.ports import reserve_port
from weft.aio.private_file import write_private
from weft.controlplane.sealing import Sealer
from weft.controlplane.secrets import Secrets
from weft.errors import NotFound
from weft.kubernetes.controller.conditions import found_condition
from weft.kubernetes.controller.kinds import EVENT, ClusterKind
from weft.kubernetes.controller.leader import Terms
from weft.kubernetes.controller.mesh_access import MeshAccess
from weft.kubernetes.controller.process import Controller, ControllerSettings
from weft.kubernetes.installation import installation
from weft.kubernetes.installation_values import InstallationValues
from weft.local.control import ControlApi
from weft.model.operator import Scope

HOST = "127.0.0.1"
LIMIT = 60.0
"""Seconds in which what is waited for must come about."""

SYSTEM = "weft-system"

T = TypeVar("T")


RBAC = "rbac.authorization.k8s.io"
RIGHTS = {
    "ServiceAccount": ClusterKind("", "v1", "ServiceAccount", "serviceaccounts"),
    "Role": ClusterKind(RBAC, "v1", "Role", "roles"),
    "RoleBinding": ClusterKind(RBAC, "v1", "RoleBinding", "rolebindings"),
    "ClusterRole": ClusterKind(RBAC, "v1", "ClusterRole", "clusterroles", namespaced=False),
    "ClusterRoleBinding": ClusterKind(
        RBAC, "v1", "ClusterRoleBinding", "clusterrolebindings", namespaced=False
    ),
}


async def grant(api: ClusterApi) -> None:
    """Give the parts of an installation the rights that its documents say, and nothing else of it."""
    for document in installation(InstallationValues()):
        if document["kind"] in RIGHTS:
            await api.cluster.create(RIGHTS[document["kind"]], document)


@dataclass
class Scene:
    """What stands on both sides, and waiting for what comes of it."""

    api: ClusterApi
    served: ServedApi
    mesh: ControlApi
    directory: Path
    url: str
    """Where the controller looks for the mesh."""
    health: str = ""
    """Where the controller tells its health."""

    async def apply(self, kind: str, name: str, spec: Document, **metadata: object) -> None:
        """Declare in the mesh, as by `weft apply`."""
        document = {
            "apiVersion": "weft.dev/v1alpha1",
            "kind": kind,
            "metadata": {"name": name, **metadata},
            "spec": spec,
        }
        await self.mesh.apply(json.dumps(document), "tests")

    async def in_mesh(self, kind: str, name: str) -> Document | None:
        """A resource of the mesh; None if there is none."""
        try:
            return await self.mesh.resource(kind, name)
        except NotFound:
            return None

    async def ready(
        self,
        kind: str,
        name: str,
        namespace: str = "default",
        *,
        status: str = "True",
        reason: str = "Applied",
    ) -> Document:
        """A custom resource, once its condition Ready is as given for the generation that it has."""

        def is_so(document: Document | None) -> bool:
            told = found_condition(document or {}, "Ready") or {}
            current = (document or {"metadata": {}})["metadata"].get("generation")
            return (told.get("status"), told.get("reason"), told.get("observedGeneration")) == (
                status,
                reason,
                current,
            )

        found = await self.eventually(lambda: self.api.found(kind, name, namespace), is_so)
        assert found is not None
        return found

    async def eventually(self, look: Callable[[], Awaitable[T]], holds: Callable[[T], bool] = bool) -> T:
        """What `look` finds, once that `holds`."""
        found: list[T] = []

        async def condition() -> bool:
            found[:] = [await look()]
            return holds(found[0])

        try:
            async with asyncio.timeout(LIMIT):
                await until(condition, longest=0.2)
        except TimeoutError:
            raise AssertionError(f"it stays so: {found}") from None
        return found[0]

    async def gone(self, look: Callable[[], Awaitable[object | None]]) -> None:
        """Wait until `look` finds nothing."""
        await self.eventually(look, lambda found: found is None)

    async def events(self, name: str) -> set[str]:
        """The reasons of the events about what has a name."""
        found = (await self.api.cluster.list(EVENT)).items
        return {each["reason"] for each in found if each["regarding"]["name"] == name}

    @asynccontextmanager
    async def controlled(
        self,
        instance: str = "controller-0",
        terms: Terms | None = None,
        namespaces: frozenset[str] = frozenset(),
    ) -> AsyncIterator[None]:
        """Within the context a controller runs."""
        with reserve_port(HOST) as held:
            port = held.port
        terms = terms or Terms(pause=0.2)
        settings = ControllerSettings(
            "weft", SYSTEM, instance, HOST, port, terms=terms, namespaces=namespaces
        )
        access = MeshAccess(self.url, token_file=self.directory / "token", roots=self.served.roots)
        self.health = f"http://{HOST}:{port}"
        running = asyncio.create_task(Controller(settings, self.api.cluster, access).run())
        try:
            yield
        finally:
            ended = running.done()
            running.cancel()
            await asyncio.wait([running])
            if ended:
                await running


@asynccontextmanager
async def controller_scene(api: ClusterApi, directory: Path) -> AsyncIterator[Scene]:
    """A cluster without custom resources, and an empty mesh, whose control plane is served."""
    await api.clear()
    await api.namespace(SYSTEM)
    async with scene_with_mesh(api, directory) as scene:
        yield scene
    await api.clear()


@asynccontextmanager
async def scene_with_mesh(api: ClusterApi, directory: Path) -> AsyncIterator[Scene]:
    """A cluster as it is, and an empty mesh."""
    async with served_api(directory, Secrets(Sealer([os.urandom(32)]))) as served:
        token, _ = await served.tokens.create("controller", Scope.ADMIN, created_by="tests")
        write_private(directory / "token", f"{token}\n".encode(), group=True)
        async with ControlApi(served.url, token=token, roots=served.roots) as mesh:
            yield Scene(api, served, mesh, directory, served.url)
