"""Having instances leave, over a store in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import httpx
import pytest
from prometheus_client import CollectorRegistry
from tests.control_access import admin_access

from weft.controlplane.api.app import create_api
from weft.controlplane.api.context import ApiContext
from weft.controlplane.draining import Draining
from weft.controlplane.sidecars import Sidecars
from weft.errors import NotFound, TimedOut
from weft.model.agent import Instance, Status
from weft.model.operator import Scope
from weft.model.subjects import DRAIN_SIGNALS
from weft.registry.registry import Lease, Registry
from weft.registry.view import View
from weft.resources.store import Resources
from weft.resources.view import ResourceView
from weft.store.memory import MemoryStore

ONE = Instance(
    "s-1", "summarizer", "127.0.0.1:9001", Status.HEALTHY, incarnation="one", started_at=1.0, version="1"
)


@dataclass
class Place:
    """A store, and the view of who is registered in it."""

    store: MemoryStore
    view: View
    lease: Lease

    def draining(self, timeout: float) -> Draining:
        return Draining(self.store.signals(DRAIN_SIGNALS), self.view, timeout=timeout)

    async def told(self) -> None:
        """Wait, as its sidecar does, until the instance is to drain; then do so."""
        async with self.store.signals(DRAIN_SIGNALS).listen(ONE.key) as listener:
            while await listener.next(60) is None:
                pass
        await self.lease.update(replace(ONE, status=Status.DRAINING))


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    store = MemoryStore()
    registry = await Registry.open(store)
    async with View(registry) as view:
        lease = await registry.register(ONE)
        async with asyncio.timeout(30):
            while ONE.key not in view.instances:
                await view.changed_since(view.generation)
        yield Place(store, view, lease)
    await store.close()


async def test_an_instance_is_told_and_seen_to_drain(place: Place) -> None:
    sidecar = asyncio.create_task(place.told())
    await place.draining(30).begin(ONE.key)
    await sidecar
    assert place.view.instances[ONE.key].status is Status.DRAINING


async def test_a_signal_that_nobody_heard_is_sent_again(place: Place) -> None:
    beginning = asyncio.create_task(place.draining(30).begin(ONE.key))
    await asyncio.sleep(0)  # the first signal is gone before anybody listens
    await place.told()
    await beginning


async def test_one_that_drains_already_is_not_hurried(place: Place) -> None:
    generation = place.view.generation
    await place.lease.update(replace(ONE, status=Status.DRAINING))
    await place.view.changed_since(generation)
    async with place.store.signals(DRAIN_SIGNALS).listen(ONE.key) as listener:
        await place.draining(30).begin(ONE.key)
        assert await listener.next(0) is None


async def test_one_that_left_or_was_replaced_meanwhile_has_drained(place: Place) -> None:
    beginning = asyncio.create_task(place.draining(30).begin(ONE.key))
    await place.lease.update(replace(ONE, started_at=2.0))
    await beginning
    beginning = asyncio.create_task(place.draining(30).begin(ONE.key))
    await place.lease.release()
    await beginning


async def test_a_sidecar_that_does_not_hear_is_told_of(place: Place) -> None:
    with pytest.raises(TimedOut, match=r"summarizer\.s-1 did not begin to drain"):
        await place.draining(0.05).begin(ONE.key)


async def test_an_unknown_instance_is_named(place: Place) -> None:
    with pytest.raises(NotFound, match="no instance 'nobody' of type 'summarizer'"):
        await place.draining(30).begin("summarizer.nobody")


async def test_only_an_operator_may_drain_and_it_is_written_down(place: Place) -> None:
    async with (
        ResourceView.follow(await Resources.open(place.store)) as declared,
        admin_access(place.store) as admin,
    ):
        sidecars = await Sidecars.open(place.store)
        context = ApiContext(
            place.view,
            await Resources.open(place.store),
            declared,
            sidecars,
            admin.access,
            draining=place.draining(0.05),
        )
        transport = httpx.ASGITransport(create_api(context, CollectorRegistry()))
        viewer, _ = await admin.access.tokens.create("looker", Scope.VIEWER, created_by="tests")
        async with httpx.AsyncClient(transport=transport, base_url="http://control") as http:
            answers = [
                await http.post(f"/v1/agents/summarizer/{instance}/drain", headers=headers)
                for instance, headers in (
                    ("s-1", {"authorization": f"Bearer {viewer}"}),
                    ("s-1", {}),
                    ("nobody", admin.headers),
                    ("s-1", admin.headers),
                )
            ]
            assert [each.status_code for each in answers] == [403, 401, 404, 504]
            drained = asyncio.create_task(place.told())
            await place.draining(30).begin(ONE.key)
            await drained
            answer = await http.post("/v1/agents/summarizer/s-1/drain", headers=admin.headers)
            assert (answer.status_code, answer.json()) == (202, {"type": "summarizer", "id": "s-1"})
            done = [each for each in admin.audit.records if each.action == "drain agent"]
            assert [(each.target, each.outcome) for each in done] == [("agent/summarizer/s-1", "done")] * 2
            assert [bool(each.reason) for each in done] == [True, False]  # the first one: perhaps
