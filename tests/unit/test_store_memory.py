"""What the store in memory can do beyond the contract of stores."""

from __future__ import annotations

import asyncio

import pytest

from weft.errors import Unavailable
from weft.store.bucket import Bucket, Entry, Put, Snapshot
from weft.store.memory import MemoryStore


class _Text:
    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
async def bucket(store: MemoryStore) -> Bucket[str]:
    return await store.bucket("things", _Text())


async def test_an_interrupted_store_refuses_everything_and_is_not_connected(
    store: MemoryStore, bucket: Bucket[str]
) -> None:
    store.interrupt()
    assert not store.connected
    for operation in (
        bucket.put("a", "1"),
        bucket.create("a", "1"),
        bucket.update("a", "1", revision=1),
        bucket.get("a"),
        bucket.delete("a"),
        bucket.entries(),
        store.bucket("more", _Text()),
    ):
        with pytest.raises(Unavailable, match="interrupted"):
            await operation


async def test_a_watch_is_silent_in_an_interruption_and_goes_on_with_a_snapshot(
    store: MemoryStore, bucket: Bucket[str]
) -> None:
    revision = await bucket.put("a", "1")
    async with bucket.watch() as changes:
        await anext(changes)
        store.interrupt()
        following = asyncio.ensure_future(anext(changes))
        # As many turns of the loop as an eager watch could need.
        for _ in range(10):
            await asyncio.sleep(0)
        assert not following.done()
        store.resume()
        assert await following == Snapshot((Entry("a", "1", revision),))
        later = await bucket.put("b", "2")
        assert await anext(changes) == Put(Entry("b", "2", later))


async def test_a_reader_that_falls_behind_starts_over_with_a_snapshot(bucket: Bucket[str]) -> None:
    async with bucket.watch() as changes:
        await anext(changes)
        revision = 0
        for _ in range(70_000):
            revision = await bucket.put("a", "1")
        assert await anext(changes) == Snapshot((Entry("a", "1", revision),))
        later = await bucket.put("b", "2")
        assert await anext(changes) == Put(Entry("b", "2", later))


async def test_a_listener_is_told_that_it_may_have_missed_signals_in_an_interruption(
    store: MemoryStore,
) -> None:
    signals = store.signals("tasks")
    async with signals.listen("q") as listener:
        store.interrupt()
        await signals.send("q.lost")
        with pytest.raises(Unavailable, match="interrupted"):
            async with signals.listen("q"):
                pass
        store.resume()
        assert await listener.next(10.0) is None
        await signals.send("q.a")
        assert await listener.next(10.0) == "q.a"
