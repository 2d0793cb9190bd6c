"""API and dashboard over a store in memory: `python -m benchmarks.dashboard_server PORT N RATE`.

N agents of twenty types are registered, renew their leases, and report RATE calls a second between them.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
import uuid
from dataclasses import replace

import uvicorn
import uvloop
from prometheus_client import CollectorRegistry
from tests.control_access import MemoryAudit
from tests.pki import Pki

from weft.controlplane.api.access import control_access
from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.api.tls import server_config
from weft.controlplane.dashboard_codes import DashboardCodes
from weft.controlplane.sealing import Sealer
from weft.controlplane.settings import ControlPlaneSettings
from weft.controlplane.sidecars import Sidecars
from weft.controlplane.telemetry.opening import open_telemetry
from weft.controlplane.telemetry.traffic import TrafficView
from weft.controlplane.tokens import Tokens
from weft.dashboard import Dashboard
from weft.dashboard.application import local_only
from weft.model.agent import Instance, Status
from weft.model.operator import Scope
from weft.model.traffic_report import BUCKETS, Calls, Edge, TrafficKind, TrafficReport
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

TOKEN = "weft_" + "b" * 43
TYPES = 20
REPORTED = 2.0
"""Seconds between two reports of a sidecar."""

RENEWED = 3.0
"""Seconds between two renewals of a lease."""


async def serve(port: int, agents: int, rate: int) -> None:
    """Serve until SIGTERM."""
    store, pki, metrics = MemoryStore(), Pki(), CollectorRegistry()
    registry, resources = await Registry.open(store, lease_ttl=60.0), await Resources.open(store)
    seal = Sealer([os.urandom(32)])
    async with (
        View(registry) as view,
        ResourceView.follow(resources) as declared,
        Tokens.follow(store) as tokens,
        open_telemetry(
            ControlPlaneSettings(), store, declared, metrics, revoked=lambda _spiffe_id: False
        ) as telemetry,
    ):
        await tokens.adopt(TOKEN, "bench", Scope.VIEWER)
        access = control_access(tokens, MemoryAudit(), bundles=pki.bundles, observer="control-1")
        codes = await DashboardCodes.open(store, seal)
        sidecars = await Sidecars.open(store)
        context = ApiContext(
            view, resources, declared, sidecars, access, dashboard_codes=codes, telemetry=telemetry
        )
        async with (
            Dashboard(create_api(context, metrics), seal=seal, codes=codes) as dashboard,
            asyncio.TaskGroup() as tasks,
        ):
            living = tasks.create_task(_live(registry, agents))
            calling = tasks.create_task(_call(telemetry.traffic, agents, rate))
            config = server_config(local_only(dashboard, ["localhost"]), None, websockets=True)
            config.port = port
            await uvicorn.Server(config).serve()
            living.cancel()
            calling.cancel()


async def _live(registry: Registry, agents: int) -> None:
    leases = []
    for number in range(agents):
        name = f"type-{number % TYPES}"
        instance = Instance(
            id=f"{name}-{number}",
            type=name,
            endpoint="127.0.0.1:80",
            status=Status.HEALTHY,
            version="1.0.0",
            capabilities=frozenset({f"do-{name}"}),
            started_at=time.time(),
        )
        leases.append((instance, await registry.register(instance)))
    turn = 0
    while True:
        for number, (instance, lease) in enumerate(leases):
            await lease.update(replace(instance, in_flight=(number + turn) % 5))
            await asyncio.sleep(RENEWED / agents)
        turn += 1


async def _call(traffic: TrafficView, agents: int, rate: int) -> None:
    buckets = [0] * BUCKETS
    each = max(1, round(rate * REPORTED / agents))
    buckets[4] = each
    while True:
        for number in range(agents):
            name, callee = f"type-{number % TYPES}", f"type-{(number * 7 + 3) % TYPES}"
            calls = Calls({"200": each}, sum_ms=20 * each, buckets=[*buckets])
            edge = Edge(callee, TrafficKind.AGENT, "1.0.0", "default")
            report = TrafficReport(uuid.uuid4().hex, time.time(), REPORTED, 1, {edge: calls})
            traffic.take(f"agent.{name}.{name}-{number}", report.encode())
            await asyncio.sleep(REPORTED / agents)


if __name__ == "__main__":
    uvloop.run(serve(*map(int, sys.argv[1:4])))
