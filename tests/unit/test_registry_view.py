"""The live picture of the registry, in fake time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from tests.fake_time import run_in_fake_time

from weft.model.agent import Instance, Status
from weft.registry.registry import Registry
from weft.registry.view import REJOIN, SUBSCRIPTION_LIMIT, ChangeKind, FellBehind, InstanceChange, View
from weft.store.memory import MemoryStore

TTL = 10.0
ONE = Instance("one", "worker", "127.0.0.1:1001", incarnation="x")
TWO = Instance("two", "worker", "127.0.0.1:1002", incarnation="y")


def _run(test: Callable[[View, Registry, MemoryStore], Awaitable[None]]) -> None:
    async def in_store() -> None:
        store = MemoryStore()
        registry = await Registry.open(store, lease_ttl=TTL)
        try:
            async with View(registry) as view:
                await test(view, registry, store)
        finally:
            await store.close()

    run_in_fake_time(in_store())


async def _write(registry: Registry, *instances: Instance) -> None:
    for each in instances:
        await registry.bucket.put(each.key, each, ttl=TTL)


async def _settle() -> None:
    """Let everything happen that needs no time."""
    await asyncio.sleep(0.01)


def test_what_is_there_is_in_the_picture_when_it_is_ready() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await _write(registry, ONE)
        await view.ready()
        assert dict(view.instances) == {"worker.one": ONE}

    _run(test)


def test_one_that_says_it_is_another_is_left_out() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await _write(registry, ONE)
        await registry.bucket.put(TWO.key, ONE, ttl=TTL)
        await view.ready()
        assert dict(view.instances) == {ONE.key: ONE}
        await _write(registry, TWO)
        await _settle()
        assert dict(view.instances) == {ONE.key: ONE, TWO.key: TWO}
        await registry.bucket.put(TWO.key, replace(ONE, type="other"), ttl=TTL)
        await _settle()
        assert dict(view.instances) == {ONE.key: ONE}

    _run(test)


def test_a_view_of_nothing_is_ready_too() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await view.ready()
        assert dict(view.instances) == {}

    _run(test)


def test_a_view_is_not_ready_before_the_store_can_be_reached() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        store.interrupt()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(60):
                await view.ready()
        store.resume()
        await view.ready()

    _run(test)


def test_the_picture_cannot_be_changed_by_its_readers() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        with pytest.raises(TypeError):
            view.instances["worker.one"] = ONE  # type: ignore[index]

    _run(test)


def test_waiters_are_woken_by_a_change() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await view.ready()
        before = view.generation
        waiting = asyncio.create_task(view.changed_since(before))
        await _write(registry, ONE)
        assert await waiting == view.generation > before
        await registry.bucket.put(ONE.key, replace(ONE, status=Status.HEALTHY), ttl=TTL)
        assert await view.changed_since(before + 1) == before + 2
        assert view.instances["worker.one"].status is Status.HEALTHY

    _run(test)


def test_a_change_of_calls_in_flight_is_seen_but_wakes_nobody() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await _write(registry, ONE)
        await view.ready()
        before = view.generation
        await _write(registry, replace(ONE, in_flight=5))
        await _settle()
        assert view.instances["worker.one"].in_flight == 5
        assert view.generation == before

    _run(test)


def test_one_that_is_deleted_or_expires_leaves_the_picture() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await _write(registry, ONE, TWO)
        await view.ready()
        await registry.bucket.delete(ONE.key)
        await _settle()
        assert set(view.instances) == {"worker.two"}
        await asyncio.sleep(TTL)
        assert set(view.instances) == set()

    _run(test)


def test_those_that_expired_in_an_outage_stay_for_one_lease_after_it() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        await _write(registry, ONE, TWO)
        await view.ready()
        before = view.generation
        store.interrupt()
        await asyncio.sleep(10 * TTL)
        store.resume()
        await asyncio.sleep(TTL / 2)
        assert set(view.instances) == {"worker.one", "worker.two"}
        await _write(registry, ONE)
        await _settle()
        assert view.generation == before
        await asyncio.sleep(TTL / 2)
        await _write(registry, ONE)
        await asyncio.sleep(REJOIN)
        assert set(view.instances) == {"worker.one"}
        assert view.generation == before + 1

    _run(test)


def test_those_that_expire_shortly_after_an_outage_stay_until_the_grace_ends() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        await _write(registry, ONE)
        await view.ready()
        store.interrupt()
        await asyncio.sleep(TTL - 2)
        store.resume()
        await asyncio.sleep(4)
        assert await registry.instances() == []
        assert set(view.instances) == {"worker.one"}
        await asyncio.sleep(7 + REJOIN)
        assert set(view.instances) == set()

    _run(test)


def test_one_that_expires_long_after_an_outage_leaves_at_once() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        await view.ready()
        store.interrupt()
        store.resume()
        await asyncio.sleep(TTL / 2)
        await _write(registry, ONE)
        await asyncio.sleep(TTL - 0.1)
        assert set(view.instances) == {"worker.one"}
        await asyncio.sleep(0.2)
        assert set(view.instances) == set()

    _run(test)


def test_a_deletion_is_believed_even_right_after_an_outage() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        await _write(registry, ONE)
        await view.ready()
        store.interrupt()
        store.resume()
        await _settle()
        await registry.bucket.delete(ONE.key)
        await _settle()
        assert set(view.instances) == set()

    _run(test)


def test_one_that_came_back_after_an_outage_and_is_deleted_later_is_gone() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        await _write(registry, ONE)
        await view.ready()
        store.interrupt()
        await asyncio.sleep(2 * TTL)
        store.resume()
        await _write(registry, ONE)
        await asyncio.sleep(1)
        await registry.bucket.delete(ONE.key)
        await _settle()
        assert set(view.instances) == set()

    _run(test)


def test_a_second_outage_begins_the_grace_anew() -> None:
    async def test(view: View, registry: Registry, store: MemoryStore) -> None:
        await _write(registry, ONE)
        await view.ready()
        for _ in range(2):
            store.interrupt()
            await asyncio.sleep(TTL * 2)
            store.resume()
            await asyncio.sleep(TTL - 1)
            assert set(view.instances) == {"worker.one"}
        await asyncio.sleep(2 + REJOIN)
        assert set(view.instances) == set()

    _run(test)


def test_a_subscriber_gets_what_is_there_and_then_every_change() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        await _write(registry, ONE)
        async with view.subscribe() as batches:
            assert await anext(batches) == (InstanceChange(ChangeKind.ADDED, ONE),)
            await _write(registry, TWO)
            assert await anext(batches) == (InstanceChange(ChangeKind.ADDED, TWO),)
            healthy = replace(TWO, status=Status.HEALTHY)
            await _write(registry, replace(TWO, in_flight=1), healthy)
            assert await anext(batches) == (InstanceChange(ChangeKind.CHANGED, healthy),)
            await registry.bucket.delete(TWO.key)
            assert await anext(batches) == (InstanceChange(ChangeKind.REMOVED, healthy),)

    _run(test)


def test_the_first_batch_of_an_empty_registry_is_empty() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        async with view.subscribe() as batches:
            assert await anext(batches) == ()

    _run(test)


def test_a_subscriber_that_takes_nothing_is_dropped_with_a_word() -> None:
    async def test(view: View, registry: Registry, _: MemoryStore) -> None:
        async with view.subscribe() as slow, view.subscribe() as quick:
            for n in range(SUBSCRIPTION_LIMIT + 1):
                await _write(registry, replace(ONE, weight=n % 1000 + 1))
                await anext(quick)
                await asyncio.sleep(0)
            with pytest.raises(FellBehind, match="subscribe again"):
                await anext(slow)

    _run(test)
