"""Registering under a lease."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import pytest
from tests.fake_time import run_in_fake_time

from weft.errors import Conflict, InvalidRequest, Unavailable
from weft.model.agent import Instance, Status
from weft.registry.registry import BUCKET, Lease, Registry
from weft.store.bucket import Bucket, Codec
from weft.store.memory import MemoryStore

T = TypeVar("T")
TTL = 10.0
FIRST = Instance("one", "worker", "127.0.0.1:1001", incarnation="first")
SECOND = replace(FIRST, endpoint="127.0.0.1:1002", incarnation="second")


class _Raw:
    def encode(self, value: bytes) -> bytes:
        return value

    def decode(self, data: bytes) -> bytes:
        return data


def _run(test: Callable[[Registry, MemoryStore], Awaitable[None]]) -> None:
    async def in_store() -> None:
        store = MemoryStore()
        try:
            await test(await Registry.open(store, lease_ttl=TTL), store)
        finally:
            await store.close()

    run_in_fake_time(in_store())


def _now() -> float:
    return asyncio.get_running_loop().time()


async def _renew(lease: Lease, instance: Instance) -> None:
    while True:
        await asyncio.sleep(3)
        await lease.update(instance)


def test_a_registered_instance_is_found_until_its_lease_lapses() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        await registry.register(FIRST)
        assert await registry.get("worker", "one") == FIRST
        assert await registry.instances() == [FIRST]
        await asyncio.sleep(TTL - 0.1)
        assert await registry.get("worker", "one") == FIRST
        await asyncio.sleep(0.2)
        assert await registry.get("worker", "one") is None
        assert await registry.instances() == []

    _run(test)


def test_an_update_writes_what_changed_and_renews_the_lease() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        await asyncio.sleep(8)
        changed = replace(FIRST, status=Status.HEALTHY, in_flight=3)
        await lease.update(changed)
        await asyncio.sleep(8)
        assert await registry.get("worker", "one") == changed

    _run(test)


def test_an_update_makes_a_lapsed_key_again() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        await asyncio.sleep(TTL + 1)
        await lease.update(FIRST)
        assert await registry.get("worker", "one") == FIRST

    _run(test)


def test_an_update_whose_predecessor_was_written_without_an_answer_goes_through() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        # What a connection that breaks between a write and its answer leaves behind.
        await registry.bucket.put(FIRST.key, replace(FIRST, in_flight=1), ttl=TTL)
        await lease.update(replace(FIRST, in_flight=2))
        found = await registry.get("worker", "one")
        assert found is not None
        assert found.in_flight == 2

    _run(test)


def test_an_update_of_a_lease_that_a_namesake_took_over_is_a_conflict() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        await asyncio.sleep(TTL + 1)
        await registry.register(SECOND)
        with pytest.raises(Conflict, match=r"127\.0\.0\.1:1002"):
            await lease.update(FIRST)
        await lease.release()
        assert await registry.get("worker", "one") == SECOND

    _run(test)


def test_a_released_instance_is_gone_at_once_and_a_second_release_does_nothing() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        await lease.release()
        assert await registry.get("worker", "one") is None
        await registry.register(SECOND)
        await lease.release()
        assert await registry.get("worker", "one") == SECOND

    _run(test)


def test_a_release_that_could_not_be_done_can_be_done_later() -> None:
    async def test(registry: Registry, store: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        store.interrupt()
        with pytest.raises(Unavailable):
            await lease.release()
        store.resume()
        await lease.release()
        assert await registry.instances() == []

    _run(test)


def test_a_released_lease_does_not_bring_its_instance_back() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        await lease.release()
        with pytest.raises(InvalidRequest, match="released"):
            await lease.update(FIRST)
        assert await registry.instances() == []

    _run(test)


@pytest.mark.parametrize("other", [replace(FIRST, id="two"), SECOND])
def test_a_lease_serves_its_own_instance_only(other: Instance) -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        with pytest.raises(InvalidRequest):
            await lease.update(other)
        assert await registry.instances() == [FIRST]

    _run(test)


def test_a_live_namesake_is_a_conflict_that_says_where_it_runs_as_soon_as_it_renews() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        renewing = asyncio.create_task(_renew(lease, FIRST))
        with pytest.raises(
            Conflict, match=r"'one' of type 'worker' is running already, at 127\.0\.0\.1:1001"
        ):
            await registry.register(SECOND)
        assert 3 <= _now() < 4  # it looks about twice a second
        renewing.cancel()
        assert await registry.get("worker", "one") == FIRST

    _run(test)


def test_the_name_of_one_that_died_without_a_word_is_taken_when_its_lease_lapses() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        await registry.register(FIRST)
        await asyncio.sleep(4)
        await registry.register(SECOND)
        assert _now() == pytest.approx(TTL, abs=0.5)
        assert await registry.get("worker", "one") == SECOND

    _run(test)


def test_the_name_of_one_that_leaves_is_taken_at_once() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        lease = await registry.register(FIRST)
        registering = asyncio.create_task(registry.register(SECOND))
        await asyncio.sleep(1)
        await lease.release()
        await registering
        assert _now() == pytest.approx(1, abs=0.5)

    _run(test)


def test_the_same_incarnation_may_register_again() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        await registry.register(FIRST)
        lease = await registry.register(replace(FIRST, weight=2))
        await lease.update(replace(FIRST, weight=3))
        found = await registry.get("worker", "one")
        assert found is not None
        assert found.weight == 3

    _run(test)


def test_of_two_that_wait_for_a_name_one_gets_it_and_the_other_a_conflict() -> None:
    async def test(registry: Registry, _: MemoryStore) -> None:
        await registry.register(FIRST)
        third = replace(SECOND, incarnation="third")
        outcomes = await asyncio.gather(
            registry.register(SECOND), registry.register(third), return_exceptions=True
        )
        assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Conflict", "Lease"]

    _run(test)


def test_a_key_that_holds_no_instance_and_never_lapses_is_a_conflict() -> None:
    async def test(registry: Registry, store: MemoryStore) -> None:
        raw = await store.bucket(BUCKET, _Raw())
        await raw.put(FIRST.key, b"garbage")
        with pytest.raises(Conflict, match=r"worker\.one"):
            await registry.register(FIRST)
        assert _now() < 2 * TTL

    _run(test)


class _CutOff(MemoryStore):
    """A server that is cut off from the others: it keeps to what was, and takes no write that follows one."""

    def __init__(self) -> None:
        super().__init__()
        self.alone = False

    async def bucket(self, name: str, codec: Codec[T], *, direct: bool = False) -> Bucket[T]:
        bucket = await super().bucket(name, codec, direct=direct)
        update = bucket.update

        async def refusing(key: str, value: T, *, revision: int, ttl: float | None = None) -> int:
            if self.alone:
                raise Conflict(f"{key} waits for a write")
            return await update(key, value, revision=revision, ttl=ttl)

        bucket.update = refusing  # type: ignore[method-assign]
        return bucket


def test_a_server_that_is_cut_off_from_the_others_is_no_namesake() -> None:
    async def test() -> None:
        store = _CutOff()
        registry = await Registry.open(store, lease_ttl=TTL)
        lease = await registry.register(FIRST)
        store.alone = True
        with pytest.raises(Unavailable, match="cut off"):
            await lease.update(FIRST)
        store.alone = False
        await lease.update(replace(FIRST, in_flight=1))
        await store.close()

    run_in_fake_time(test())


def test_an_unreachable_store_is_told() -> None:
    async def test(registry: Registry, store: MemoryStore) -> None:
        store.interrupt()
        with pytest.raises(Unavailable):
            await registry.register(FIRST)

    _run(test)
