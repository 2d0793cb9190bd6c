"""The controller's process: health and metrics at once, everything else while it leads.

| metric | kind | what |
|---|---|---|
| `weft_controller_leading` | gauge | 1 where this replica leads |
| `weft_controller_mesh_reachable` | gauge | 1 where it does, and the control plane answers |
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST, generate_latest

from weft.aio.backoff import backoff
from weft.aio.tasks import TaskOwner
from weft.errors import MeshError
from weft.kubernetes.controller.agent_deployments import AgentDeployments
from weft.kubernetes.controller.cluster import Cluster
from weft.kubernetes.controller.conditions import Reports
from weft.kubernetes.controller.definitions import Definitions
from weft.kubernetes.controller.http_routes import HttpRoutes
from weft.kubernetes.controller.kinds import NAMESPACE, Key
from weft.kubernetes.controller.leader import TERMS, Leadership, Terms
from weft.kubernetes.controller.loop import LoopMetrics, Reconciler, run_loop
from weft.kubernetes.controller.mesh import Mesh
from weft.kubernetes.controller.mesh_access import MeshAccess
from weft.kubernetes.controller.parts import Parts
from weft.kubernetes.controller.plain_services import PlainServices
from weft.kubernetes.controller.roots import Roots
from weft.kubernetes.controller.sync import MeshSync
from weft.kubernetes.health import serving_health
from weft.kubernetes.injection_settings import InjectionSettings
from weft.model.resource import KINDS

logger = logging.getLogger(__name__)

HEALTH_PORT: Final = 8081

_HOME = Key("", "kube-system")
"""The namespace that every cluster has, for as long as it exists."""


@dataclass(frozen=True, slots=True)
class ControllerSettings:
    """What a controller is told."""

    name: str
    """Of the installation."""
    namespace: str
    """Where it is installed."""
    instance: str
    """The name of this pod."""
    listen: str
    """IP address for health and metrics."""
    health_port: int = HEALTH_PORT
    injection: InjectionSettings = field(default_factory=InjectionSettings)
    """What sidecars are like."""
    namespaces: frozenset[str] = frozenset()
    """Beside that where Weft is installed: the only ones whose objects count. Empty: all do."""
    terms: Terms = TERMS


def reconcilers(parts: Parts, settings: ControllerSettings) -> list[Reconciler]:
    """All that is reconciled."""
    return [
        *(MeshSync(kind, parts) for kind in KINDS),
        AgentDeployments(parts, settings.injection),
        Roots(parts, settings.injection.roots),
        HttpRoutes(parts),
        PlainServices(parts),
    ]


class Controller:
    """One replica."""

    def __init__(self, settings: ControllerSettings, cluster: Cluster, access: MeshAccess) -> None:
        self._settings = settings
        self._cluster = cluster
        self._access = access
        self._metrics = CollectorRegistry()
        self._loop_metrics = LoopMetrics(self._metrics)
        self._mesh: Mesh | None = None
        self._reports = Reports(cluster, settings.instance)
        self._definitions = Definitions(cluster, self._reports, settings.namespace)
        lease = Key(settings.namespace, f"{settings.name}-controller")
        self._leadership = Leadership(cluster, lease, settings.instance, terms=settings.terms)
        self._measure()

    async def run(self) -> None:
        """Answer for health, and lead when it is this replica's turn, until cancelled.

        Raises Unavailable if the health port is taken, InvalidRequest if there is no token for the mesh.
        """
        pages = {"/readyz": self._readiness, "/metrics": self._show_metrics}
        at = self._settings.listen, self._settings.health_port
        async with serving_health(*at, {"/livez": _living}, pages):
            await self._leadership.run(self._lead)

    async def _lead(self) -> None:
        uid = await self._cluster_uid()
        mesh = self._mesh = Mesh(self._access.open(), self._access.renewed)
        settings = self._settings
        parts = Parts(self._cluster, mesh, self._reports, settings.namespace, uid, settings.namespaces)
        try:
            async with TaskOwner("leader") as tasks:
                tasks.start(self._definitions.run(), name="definitions", endless=True)
                await run_loop(reconcilers(parts, self._settings), self._loop_metrics)
        finally:
            self._mesh = None
            await mesh.close()

    async def _cluster_uid(self) -> str:
        pauses = backoff(first=0.5, longest=10.0)
        while True:
            try:
                found = await self._cluster.get(NAMESPACE, _HOME)
                if found is not None:
                    return str(found["metadata"]["uid"])
                reason = f"there is no namespace {_HOME}"
            except MeshError as error:
                reason = error.detail
            logger.warning("which cluster this is cannot be found out: %s", reason)
            await asyncio.sleep(next(pauses))

    def _readiness(self) -> web.Response:
        """Ready is who has heard of the Lease: a replica that waits is as ready as the one that leads."""
        if not self._leadership.heard:
            return web.Response(status=503, text="the cluster's API does not answer, or not this pod\n")
        return web.Response(text="\n".join(["ok", *self._notes(), ""]))

    def _notes(self) -> Sequence[str]:
        if self._mesh is None:
            return ["another replica leads"]
        away = [] if self._mesh.reachable else ["the mesh does not answer"]
        return ["leads", *away, *self._definitions.lacking]

    def _show_metrics(self) -> web.Response:
        text = generate_latest(self._metrics)  # type: ignore[no-untyped-call]
        return web.Response(body=text, headers={"content-type": CONTENT_TYPE_LATEST})

    def _measure(self) -> None:
        leading = Gauge(
            "weft_controller_leading", "1 where this replica of the controller leads.", registry=self._metrics
        )
        leading.set_function(lambda: self._leadership.leading)
        reachable = Gauge(
            "weft_controller_mesh_reachable",
            "1 where this replica of the controller leads, and the control plane answers.",
            registry=self._metrics,
        )
        reachable.set_function(lambda: self._mesh is not None and self._mesh.reachable)


async def _living() -> str:
    return ""
