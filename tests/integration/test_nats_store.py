"""The store over a real nats-server that dies, freezes, forgets, and comes back."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import nats
import pytest
from nats.js.api import StreamConfig
from tests.servers import NatsServer, nats_server

from weft.aio.poll import until
from weft.errors import Unavailable
from weft.store.bucket import MAX_VALUE_BYTES, Bucket, Change, Entry, Put, Removal, Removed, Snapshot
from weft.store.nats import NatsStore

T = TypeVar("T")

PATIENCE = 60.0
NOWHERE = "127.0.0.1:1"


class TextCodec:
    """Values are text."""

    def encode(self, value: str) -> bytes:
        return value.encode()

    def decode(self, data: bytes) -> str:
        return data.decode()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def store(server: NatsServer) -> AsyncIterator[NatsStore]:
    async with connected_to(server) as store:
        yield store


@pytest.fixture
async def bucket(store: NatsStore) -> Bucket[str]:
    return await store.bucket("things", TextCodec())


@asynccontextmanager
async def connected_to(server: NatsServer, *, timeout: float = 5.0) -> AsyncIterator[NatsStore]:
    store = await NatsStore.connect([server.url], name="test", timeout=timeout)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def tcp_server(greeting: bytes) -> AsyncIterator[str]:
    """Something that is no NATS: says `greeting` to whoever connects, and no more."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)
        await reader.read()
        writer.close()

    listener = await asyncio.start_server(greet, "127.0.0.1", 0)
    async with listener:
        yield f"nats://127.0.0.1:{listener.sockets[0].getsockname()[1]}"


async def following(changes: AsyncIterator[Change[T]]) -> Change[T]:
    async with asyncio.timeout(PATIENCE):
        return await anext(changes)


async def reconnected(store: NatsStore) -> None:
    async def is_connected() -> bool:
        return store.connected

    async with asyncio.timeout(PATIENCE):
        await until(is_connected)


async def eventually_put(bucket: Bucket[str], key: str, value: str) -> None:
    """Write, again if need be: the connection may be given up just when the server comes back to life."""

    async def is_written() -> bool:
        with suppress(Unavailable):
            await bucket.put(key, value)
            return True
        return False

    async with asyncio.timeout(PATIENCE):
        await until(is_written)


async def consumers(server: NatsServer, stream: str) -> int:
    client = await nats.connect(server.url)
    try:
        return (await client.jetstream().stream_info(stream)).state.consumer_count
    finally:
        await client.close()


async def test_a_watch_goes_on_with_a_snapshot_after_its_server_was_killed(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    one = await bucket.put("one", "1")
    async with bucket.watch() as changes:
        assert await following(changes) == Snapshot((Entry("one", "1", one),))
        two = await bucket.put("two", "2")
        assert await following(changes) == Put(Entry("two", "2", two))
        await server.restart()
        assert await following(changes) == Snapshot((Entry("one", "1", one), Entry("two", "2", two)))
        three = await bucket.put("three", "3")
        assert three > two
        assert await following(changes) == Put(Entry("three", "3", three))
        await bucket.delete("one")
        removed = await following(changes)
    assert isinstance(removed, Removed)
    assert (removed.key, removed.reason) == ("one", Removal.DELETED)


async def test_what_others_changed_while_a_watcher_was_cut_off_is_in_its_next_snapshot(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    await bucket.put("old", "1")
    async with bucket.watch() as changes:
        await following(changes)
        await server.restart()
        async with connected_to(server) as other_store:
            other = await other_store.bucket("things", TextCodec())
            await other.delete("old")
            new = await other.put("new", "2")
            expected = {"new": Entry("new", "2", new)}
            known: dict[str, Entry[str]] = {}
            snapshots = 0
            while not snapshots or known != expected:
                change = await following(changes)
                snapshots += isinstance(change, Snapshot)
                if isinstance(change, Snapshot):
                    known = {entry.key: entry for entry in change.entries}
                elif isinstance(change, Put):
                    known[change.entry.key] = change.entry
                else:
                    known.pop(change.key)
    assert snapshots == 1


async def test_keys_that_expired_while_the_server_was_down_are_gone_after_its_return(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    kept = await bucket.put("kept", "1")
    async with bucket.watch() as changes:
        await following(changes)
        await bucket.put("leased", "2", ttl=1)
        await following(changes)
        await server.kill()
        await asyncio.sleep(2)
        await server.start()
        change = await following(changes)
        assert isinstance(change, Snapshot)
        # It may still be there for a moment; then its end is told.
        if len(change.entries) > 1:
            removed = await following(changes)
            assert isinstance(removed, Removed)
            assert (removed.key, removed.reason) == ("leased", Removal.EXPIRED)
    assert await bucket.entries() == [Entry("kept", "1", kept)]


async def test_a_watch_survives_one_restart_after_another(server: NatsServer, bucket: Bucket[str]) -> None:
    async with bucket.watch() as changes:
        await following(changes)
        for n in range(5):
            await server.restart()
            await bucket.put(f"k{n}", str(n))
        async with asyncio.timeout(PATIENCE):
            known: set[str] = set()
            while known != {f"k{n}" for n in range(5)}:
                change = await following(changes)
                if isinstance(change, Snapshot):
                    known = {entry.key for entry in change.entries}
                elif isinstance(change, Put):
                    known.add(change.entry.key)


async def test_a_watch_that_began_while_the_server_was_down_begins_when_it_is_back(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    revision = await bucket.put("a", "1")
    await server.kill()
    async with bucket.watch() as changes:
        first = asyncio.ensure_future(anext(changes))
        await server.start()
        async with asyncio.timeout(PATIENCE):
            assert await first == Snapshot((Entry("a", "1", revision),))


async def test_a_watch_goes_on_after_its_server_stood_still(server: NatsServer, bucket: Bucket[str]) -> None:
    async with bucket.watch() as changes:
        await following(changes)
        server.freeze()
        try:
            with pytest.raises(Unavailable):
                await bucket.put("a", "1")
        finally:
            server.thaw()
        await eventually_put(bucket, "b", "2")
        known: set[str] = set()
        while "b" not in known:
            change = await following(changes)
            entries = change.entries if isinstance(change, Snapshot) else ()
            known.update(entry.key for entry in entries)
            if isinstance(change, Put):
                known.add(change.entry.key)


async def test_a_reader_that_falls_behind_starts_over_with_a_snapshot(bucket: Bucket[str]) -> None:
    large = "x" * MAX_VALUE_BYTES
    async with bucket.watch() as changes:
        assert await following(changes) == Snapshot(())
        revision = 0
        for _ in range(70):
            revision = await bucket.put("a", large)
        assert await following(changes) == Snapshot((Entry("a", large, revision),))
        revision = await bucket.put("b", "2")
        assert await following(changes) == Put(Entry("b", "2", revision))


async def test_neither_a_watch_nor_a_listing_leaves_a_consumer_behind(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    async with bucket.watch() as changes:
        await following(changes)
        assert await consumers(server, "KV_things") == 1
        await bucket.entries()
    assert await consumers(server, "KV_things") == 0


async def test_an_operation_without_a_server_fails_in_time_and_says_where_it_should_be(
    server: NatsServer,
) -> None:
    async with connected_to(server, timeout=1.0) as store:
        bucket = await store.bucket("things", TextCodec())
        await server.kill()
        for operation in (
            bucket.put("a", "1"),
            bucket.create("a", "1"),
            bucket.update("a", "1", revision=1),
            bucket.get("a"),
            bucket.delete("a"),
            bucket.entries(),
            store.bucket("more", TextCodec()),
        ):
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(Unavailable, match=f"127.0.0.1:{server.port}"):
                    await operation
        assert not store.connected
        await server.start()
        await reconnected(store)
        assert await bucket.put("a", "1")


async def test_a_write_that_failed_in_an_outage_is_not_done_afterwards(server: NatsServer) -> None:
    async with connected_to(server, timeout=1.0) as store:
        bucket = await store.bucket("things", TextCodec())
        await server.kill()
        with pytest.raises(Unavailable):
            await bucket.put("a", "1")
        await server.start()
        await reconnected(store)
        await bucket.put("b", "2")
        assert await bucket.get("a") is None


async def test_an_operation_waits_for_a_server_that_is_just_restarting(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    await server.kill()
    writing = asyncio.create_task(bucket.put("a", "1"))
    await server.start()
    revision = await writing
    assert await bucket.get("a") == Entry("a", "1", revision)


async def test_a_server_that_lost_its_data_gets_its_buckets_again(
    server: NatsServer, bucket: Bucket[str]
) -> None:
    await bucket.put("a", "1")
    async with bucket.watch() as changes:
        await following(changes)
        await server.kill()
        shutil.rmtree(server.data)
        await server.start()
        assert await following(changes) == Snapshot(())
        revision = await bucket.create("a", "2")
        assert await following(changes) == Put(Entry("a", "2", revision))


async def test_many_may_open_the_same_new_bucket_at_once(server: NatsServer) -> None:
    async def use(n: int) -> None:
        async with connected_to(server) as store:
            bucket = await store.bucket("shared", TextCodec())
            await bucket.put(f"k{n}", str(n))

    await asyncio.gather(*(use(n) for n in range(10)))
    async with connected_to(server) as store:
        assert len(await (await store.bucket("shared", TextCodec())).entries()) == 10


async def test_a_stream_that_an_operator_changed_is_used_as_it_is(
    server: NatsServer, store: NatsStore
) -> None:
    await store.bucket("tuned", TextCodec())
    client = await nats.connect(server.url)
    try:
        jetstream = client.jetstream()
        config = (await jetstream.stream_info("KV_tuned")).config
        assert isinstance(config, StreamConfig)
        await jetstream.update_stream(config.evolve(max_bytes=1_000_000))
    finally:
        await client.close()
    bucket = await store.bucket("tuned", TextCodec())
    assert await bucket.put("a", "1")


async def test_connecting_to_nobody_fails_at_once_and_keeps_the_password_to_itself() -> None:
    with pytest.raises(Unavailable, match=NOWHERE) as raised:
        await NatsStore.connect([f"nats://user:secret@{NOWHERE}"], name="test")
    assert "secret" not in raised.value.detail


@pytest.mark.parametrize("greeting", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"INFO {\r\n", b"\xff" * 9])
async def test_connecting_to_something_that_is_no_nats_fails_in_time(greeting: bytes) -> None:
    async with tcp_server(greeting) as url:
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(Unavailable):
                await NatsStore.connect([url], name="test", timeout=1.0)


async def test_one_server_of_those_listed_is_enough(server: NatsServer) -> None:
    for _ in range(3):
        store = await NatsStore.connect([f"nats://{NOWHERE}", server.url], name="test")
        assert store.connected
        await store.close()


async def test_a_listener_is_told_of_a_lost_connection_and_hears_again_after_it(
    server: NatsServer, store: NatsStore
) -> None:
    signals = store.signals("tasks")
    async with signals.listen("q") as listener:
        waiting = asyncio.create_task(listener.next(PATIENCE))
        await server.kill()
        assert await waiting is None
        await signals.send("q.lost")  # nobody hears it, and it is no error
        assert await listener.next(0.05) is None
        await server.start()
        # Once it listens again it says that there may have been something.
        assert await listener.next(PATIENCE) is None
        await signals.send("q.a")
        assert await listener.next(PATIENCE) == "q.a"
        await store.reconnect()
        assert [await listener.next(PATIENCE) for _ in range(2)] == [None, None]
        await signals.send("q.b")
        assert await listener.next(PATIENCE) == "q.b"


async def test_nobody_can_begin_to_listen_while_there_is_no_server(server: NatsServer) -> None:
    async with connected_to(server, timeout=0.5) as store:
        await server.kill()
        with pytest.raises(Unavailable, match="listen"):
            async with store.signals("tasks").listen("q"):
                pass


async def test_writes_under_way_when_the_server_dies_fail_at_once_and_those_after_are_done_when_it_is_back(
    server: NatsServer,
) -> None:
    async with connected_to(server, timeout=30 * PATIENCE) as store, asyncio.timeout(PATIENCE):
        bucket = await store.bucket("things", TextCodec())
        await bucket.put("a", "1")
        server.freeze()
        writes = [asyncio.create_task(bucket.put(f"b.{n}", "x")) for n in range(500)]
        await asyncio.sleep(0)
        writes[0].cancel()
        await server.kill()
        outcomes = await asyncio.gather(*writes, return_exceptions=True)
        assert {type(each) for each in outcomes} == {Unavailable, asyncio.CancelledError}
        late = asyncio.create_task(bucket.put("c", "2"))
        await server.start()
        assert await late
        assert await bucket.get("c")


async def test_signals_that_cannot_be_written_are_dropped_and_nobody_waits(
    server: NatsServer, store: NatsStore
) -> None:
    signals = store.signals("tasks")
    server.freeze()
    async with asyncio.timeout(PATIENCE):
        for number in range(50_000):
            await signals.send(f"q.{number}")
    server.thaw()
