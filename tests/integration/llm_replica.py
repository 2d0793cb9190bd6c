"""What schedules calls to models in a control plane: `python llm_replica.py NATS_URL NAME DIRECTORY PORT`.

DIRECTORY holds `server.pem`, `server.key` and `roots.pem`. It serves at PORT, with nothing but NATS, until it
is killed, and writes to its standard output what sidecars would hear: a line of JSON for each lease, and for
each replica that schedules.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import uvloop
from prometheus_client import CollectorRegistry
from tests.xds import Log, OneSnapshot, snapshot

from weft.controlplane.access_logs import AccessLogService
from weft.controlplane.llm.leadership import TTL
from weft.controlplane.llm.scheduling import LlmScheduling, Replica
from weft.controlplane.xds.credentials import ServerIdentity, server_credentials
from weft.controlplane.xds.server import AdsServer
from weft.model.llm_lease import Lease
from weft.model.node import Address
from weft.model.spiffe import DEFAULT_TRUST_DOMAIN
from weft.registry.registry import Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.nats import NatsStore

HOST = "127.0.0.1"


class Told:
    """What sidecars would hear, on standard output."""

    def update_leases(self, leases: Mapping[str, Lease]) -> None:
        grants = {
            each.holder: {grant.pool: [grant.requests, grant.tokens] for grant in each.grants}
            for each in leases.values()
        }
        print(json.dumps({"leases": grants}), flush=True)

    def update_scheduler(self, scheduler: Address | None) -> None:
        print(json.dumps({"scheduler": str(scheduler)}), flush=True)


def identity(directory: Path) -> ServerIdentity:
    """What a replica shows."""
    names = ("server.pem", "server.key", "roots.pem")
    return ServerIdentity(*((directory / each).read_bytes() for each in names))


@asynccontextmanager
async def replica(
    url: str,
    name: str,
    shown: ServerIdentity,
    port: int,
    revoked: frozenset[str] = frozenset(),
    *,
    lead_ttl: float = TTL,
) -> AsyncIterator[tuple[LlmScheduling, CollectorRegistry]]:
    """One that serves; have `run` of what is given run."""
    metrics = CollectorRegistry()
    store = await NatsStore.connect([url], name=name)
    try:
        registry = await Registry.open(store)
        resources = await Resources.open(store)
        async with View(registry) as instances, ResourceView.follow(resources) as declared:
            await instances.ready()
            who = Replica(
                name, f"{HOST}:{port}", DEFAULT_TRUST_DOMAIN, revoked.__contains__, lead_ttl=lead_ttl
            )
            async with LlmScheduling.open(store, declared, instances, who, metrics) as models:
                ads = AdsServer(
                    OneSnapshot(snapshot()),
                    observer=Log(),
                    registry=metrics,
                    host=HOST,
                    port=port,
                    credentials=server_credentials(lambda: shown),
                    services=[*models.services, AccessLogService(models.logs).handler()],
                )
                async with ads:
                    yield models, metrics
    finally:
        await store.close()


async def main(url: str, name: str, directory: str, port: str) -> None:
    async with replica(url, name, identity(Path(directory)), int(port)) as (models, _):
        print(json.dumps({"serving": name}), flush=True)
        await models.run(Told())


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(name)s %(message)s")
    uvloop.run(main(*sys.argv[1:]))
