"""The registry over a real nats-server that goes away for longer than a lease."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.servers import nats_server

from weft.errors import Unavailable
from weft.model.agent import Instance
from weft.registry.registry import Lease, Registry
from weft.registry.view import View
from weft.store.nats import NatsStore

TTL = 4.0
"""Seconds: longer than a busy machine keeps a survivor from renewing once the server is back."""
PATIENCE = 60.0
SURVIVOR = Instance("survivor", "worker", "127.0.0.1:1001", incarnation="x")
CASUALTY = Instance("casualty", "worker", "127.0.0.1:1002", incarnation="y")


async def _renew(lease: Lease, instance: Instance) -> None:
    while True:
        with suppress(Unavailable):
            await lease.update(instance)
        await asyncio.sleep(TTL / 4)


async def test_an_outage_longer_than_a_lease_costs_only_those_who_do_not_come_back(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        store = await NatsStore.connect([server.url], name="test", timeout=1.0)
        registry = await Registry.open(store, lease_ttl=TTL)
        await registry.register(CASUALTY)
        renewing = asyncio.create_task(_renew(await registry.register(SURVIVOR), SURVIVOR))
        async with View(registry) as view:
            await view.ready()
            assert set(view.instances) == {SURVIVOR.key, CASUALTY.key}
            before = view.generation
            await server.kill()
            await asyncio.sleep(2 * TTL)
            assert set(view.instances) == {SURVIVOR.key, CASUALTY.key}
            await server.start()
            async with asyncio.timeout(PATIENCE):
                after = await view.changed_since(before)
            # The first change of all is the casualty's end: the survivor was never missing.
            assert after == before + 1
            assert set(view.instances) == {SURVIVOR.key}
            assert [each.key for each in await registry.instances()] == [SURVIVOR.key]
        renewing.cancel()
        await store.close()
        assert renewing.cancelling()


async def test_a_name_is_inherited_once_the_lease_of_one_that_was_killed_lapses(tmp_path: Path) -> None:
    async with nats_server(tmp_path) as server:
        store = await NatsStore.connect([server.url], name="test")
        registry = await Registry.open(store, lease_ttl=TTL)
        await registry.register(CASUALTY)
        heir = Instance("casualty", "worker", "127.0.0.1:1003", incarnation="z")
        async with asyncio.timeout(PATIENCE):
            await registry.register(heir)
        assert await registry.get("worker", "casualty") == heir
        await store.close()
