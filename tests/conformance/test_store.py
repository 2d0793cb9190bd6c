"""What every store promises, whichever it is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import pytest
from tests.conformance.codecs import JsonCodec, RawCodec

from weft.errors import Conflict, InvalidRequest
from weft.store.bucket import MAX_VALUE_BYTES, Bucket, Change, Entry, Put, Removal, Removed, Snapshot, Store

T = TypeVar("T")

PATIENCE = 60.0


@pytest.fixture
async def bucket(store: Store) -> Bucket[Any]:
    return await store.bucket("things", JsonCodec())


async def following(changes: AsyncIterator[Change[T]]) -> Change[T]:
    async with asyncio.timeout(PATIENCE):
        return await anext(changes)


async def gone(bucket: Bucket[Any], key: str) -> None:
    """Wait until `key` is gone, as a watcher is told."""
    async with asyncio.timeout(PATIENCE), bucket.watch(key) as changes:
        async for change in changes:
            if change == Snapshot(()) or isinstance(change, Removed):
                return


def test_a_fresh_store_says_that_it_is_connected(store: Store) -> None:
    assert store.connected


async def test_a_created_key_can_be_read_at_its_revision(bucket: Bucket[Any]) -> None:
    revision = await bucket.create("a.b", {"n": 1})
    assert await bucket.get("a.b") == Entry("a.b", {"n": 1}, revision)


async def test_a_key_that_was_never_written_is_none(bucket: Bucket[Any]) -> None:
    assert await bucket.get("nothing") is None


async def test_creating_a_key_that_exists_is_a_conflict_and_changes_nothing(bucket: Bucket[Any]) -> None:
    revision = await bucket.create("a", 1)
    with pytest.raises(Conflict, match="'a'"):
        await bucket.create("a", 2)
    assert await bucket.get("a") == Entry("a", 1, revision)


async def test_a_put_writes_over_whatever_was_there(bucket: Bucket[Any]) -> None:
    await bucket.put("a", 1)
    revision = await bucket.put("a", 2)
    assert await bucket.get("a") == Entry("a", 2, revision)


async def test_an_update_at_the_current_revision_is_written(bucket: Bucket[Any]) -> None:
    revision = await bucket.create("a", 1)
    newer = await bucket.update("a", 2, revision=revision)
    assert await bucket.get("a") == Entry("a", 2, newer)


@pytest.mark.parametrize("offset", [-1, 1, 1000])
async def test_an_update_at_another_revision_is_a_conflict(bucket: Bucket[Any], offset: int) -> None:
    await bucket.put("other", 0)
    revision = await bucket.create("a", 1)
    with pytest.raises(Conflict):
        await bucket.update("a", 2, revision=revision + offset)
    assert await bucket.get("a") == Entry("a", 1, revision)


@pytest.mark.parametrize("revision", [0, 1])
async def test_an_update_of_a_missing_key_is_a_conflict(bucket: Bucket[Any], revision: int) -> None:
    with pytest.raises(Conflict):
        await bucket.update("a", 1, revision=revision)
    assert await bucket.get("a") is None


async def test_revisions_grow_over_all_keys_of_a_bucket(bucket: Bucket[Any]) -> None:
    first = await bucket.create("a", 1)
    second = await bucket.create("b", 1)
    third = await bucket.update("a", 2, revision=first)
    await bucket.delete("b")
    fourth = await bucket.create("b", 2)
    assert first < second < third < fourth


async def test_a_deleted_key_is_gone_and_can_be_created_again(bucket: Bucket[Any]) -> None:
    first = await bucket.create("a", 1)
    await bucket.delete("a")
    assert await bucket.get("a") is None
    assert await bucket.entries() == []
    second = await bucket.create("a", 2)
    assert second > first
    assert await bucket.get("a") == Entry("a", 2, second)


async def test_deleting_a_missing_key_is_no_error_and_no_news(bucket: Bucket[Any]) -> None:
    async with bucket.watch() as changes:
        assert await following(changes) == Snapshot(())
        await bucket.delete("a")
        await bucket.delete("a", revision=7)
        revision = await bucket.put("b", 1)
        assert await following(changes) == Put(Entry("b", 1, revision))


async def test_deleting_at_the_current_revision_removes_the_key(bucket: Bucket[Any]) -> None:
    revision = await bucket.create("a", 1)
    await bucket.delete("a", revision=revision)
    assert await bucket.get("a") is None


async def test_deleting_at_another_revision_is_a_conflict_and_keeps_the_key(bucket: Bucket[Any]) -> None:
    old = await bucket.create("a", 1)
    revision = await bucket.update("a", 2, revision=old)
    with pytest.raises(Conflict):
        await bucket.delete("a", revision=old)
    assert await bucket.get("a") == Entry("a", 2, revision)


async def test_of_many_that_create_a_key_at_once_exactly_one_wins(bucket: Bucket[Any]) -> None:
    await bucket.put("a", "before")
    await bucket.delete("a")
    outcomes = await asyncio.gather(*(bucket.create("a", n) for n in range(20)), return_exceptions=True)
    winners = [n for n, outcome in enumerate(outcomes) if isinstance(outcome, int)]
    losers = [outcome for outcome in outcomes if isinstance(outcome, Conflict)]
    assert (len(winners), len(losers)) == (1, 19)
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == winners[0]


async def test_a_prefix_covers_whole_tokens_only(bucket: Bucket[Any]) -> None:
    for key in ("b", "a", "a.1", "a.1.x", "ab", "ab.1"):
        await bucket.put(key, key)
    assert [entry.key for entry in await bucket.entries("a")] == ["a", "a.1", "a.1.x"]
    assert [entry.key for entry in await bucket.entries("a.1")] == ["a.1", "a.1.x"]
    assert [entry.key for entry in await bucket.entries()] == ["a", "a.1", "a.1.x", "ab", "ab.1", "b"]
    assert await bucket.entries("none") == []


@pytest.mark.parametrize("direct", [True, False])
async def test_the_latest_entries_come_first_each_where_it_was_written_last(
    store: Store, direct: bool
) -> None:
    bucket = await store.bucket("things", JsonCodec(), direct=direct)
    for key in ("q.a", "q.b", "other", "q.c", "q.gone"):
        await bucket.put(key, key)
    revision = await bucket.put("q.a", "again")
    await bucket.delete("q.gone")
    found = await bucket.recent(10, "q")
    assert [(each.key, each.value) for each in found] == [("q.a", "again"), ("q.c", "q.c"), ("q.b", "q.b")]
    assert found[0].revision == revision
    assert [each.key for each in await bucket.recent(2)] == ["q.a", "q.c"]
    assert await bucket.recent(10, "none") == []


@pytest.mark.parametrize("direct", [True, False])
async def test_the_latest_entries_can_be_paged_through_however_rare_they_are(
    store: Store, direct: bool
) -> None:
    bucket = await store.bucket("things", JsonCodec(), direct=direct)
    for number in range(100):
        await bucket.put(f"q.{number}", number)
        await bucket.put("often", number)
    pages: list[list[Any]] = []
    before: int | None = None
    while page := await bucket.recent(30, "q", before=before):
        pages.append([each.value for each in page])
        before = page[-1].revision
    assert [len(page) for page in pages] == [30, 30, 30, 10]
    assert [value for page in pages for value in page] == list(range(99, -1, -1))
    assert [each.value for each in await bucket.recent(1, "often", before=None)] == [99]
    assert await bucket.recent(30, before=1) == []


async def test_an_empty_bucket_has_no_latest_entries_and_absurd_limits_are_refused(
    bucket: Bucket[Any],
) -> None:
    assert await bucket.recent() == []
    for limit in (0, 10**9):
        with pytest.raises(InvalidRequest):
            await bucket.recent(limit)


@pytest.mark.parametrize("made_direct", [True, False])
async def test_a_bucket_opened_for_direct_reads_behaves_as_any_other(store: Store, made_direct: bool) -> None:
    await store.bucket("things", JsonCodec(), direct=made_direct)
    bucket = await store.bucket("things", JsonCodec(), direct=True)
    assert await bucket.get("a") is None
    revision = await bucket.create("a", {"n": 1})
    assert await bucket.get("a") == Entry("a", {"n": 1}, revision)
    revision = await bucket.update("a", {"n": 2}, revision=revision, ttl=60)
    assert await bucket.get("a") == Entry("a", {"n": 2}, revision)
    await bucket.delete("a", revision=revision)
    assert await bucket.get("a") is None
    with pytest.raises(Conflict):
        await bucket.update("a", 3, revision=revision)
    again = await bucket.create("a", "x" * 100_000)
    assert (await bucket.get("a")) == Entry("a", "x" * 100_000, again)


async def test_all_who_open_a_bucket_see_the_same_contents(store: Store) -> None:
    first, second = await asyncio.gather(*(store.bucket("shared", JsonCodec()) for _ in range(2)))
    revision = await first.create("a", 1)
    assert await second.get("a") == Entry("a", 1, revision)


async def test_buckets_do_not_see_each_other(store: Store) -> None:
    first, second = [await store.bucket(name, JsonCodec()) for name in ("one", "two")]
    await first.put("a", 1)
    assert await second.entries() == []


async def test_a_key_expires_when_its_time_to_live_is_over(bucket: Bucket[Any]) -> None:
    await bucket.create("kept", 1)
    async with bucket.watch() as changes:
        await following(changes)
        revision = await bucket.create("a", 1, ttl=1)
        assert await following(changes) == Put(Entry("a", 1, revision))
        assert await bucket.get("a") == Entry("a", 1, revision)
        removed = await following(changes)
    assert isinstance(removed, Removed)
    assert (removed.key, removed.reason) == ("a", Removal.EXPIRED)
    assert removed.revision >= revision
    assert await bucket.get("a") is None
    assert [entry.key for entry in await bucket.entries()] == ["kept"]


async def test_a_key_that_turned_to_garbage_is_gone_when_its_time_runs_out(
    store: Store, bucket: Bucket[Any]
) -> None:
    raw = await store.bucket("things", RawCodec())
    async with bucket.watch() as changes:
        await following(changes)
        await bucket.create("a", 1)
        assert isinstance(await following(changes), Put)
        await raw.put("a", b"\xff", ttl=1)
        removed = await following(changes)
    assert isinstance(removed, Removed)
    assert (removed.key, removed.reason) == ("a", Removal.EXPIRED)


async def test_an_expired_key_can_be_created_again(bucket: Bucket[Any]) -> None:
    await bucket.create("a", 1, ttl=1)
    await gone(bucket, "a")
    revision = await bucket.create("a", 2)
    assert await bucket.get("a") == Entry("a", 2, revision)


async def test_a_key_that_is_written_again_in_time_does_not_expire(bucket: Bucket[Any]) -> None:
    started = asyncio.get_running_loop().time()
    await bucket.put("a", 0, ttl=2)
    revision = await bucket.put("a", 1, ttl=7)
    await bucket.put("clock", 0, ttl=2)
    await gone(bucket, "clock")
    assert await bucket.get("a") == Entry("a", 1, revision)
    await gone(bucket, "a")
    assert asyncio.get_running_loop().time() - started > 6.5


async def test_a_key_that_is_written_again_without_a_time_to_live_stays(bucket: Bucket[Any]) -> None:
    revision = await bucket.create("a", 0, ttl=2)
    revision = await bucket.update("a", 1, revision=revision)
    await bucket.put("clock", 0, ttl=3)
    await gone(bucket, "clock")
    assert await bucket.get("a") == Entry("a", 1, revision)


async def test_a_fraction_of_a_second_never_shortens_a_time_to_live(bucket: Bucket[Any]) -> None:
    started = asyncio.get_running_loop().time()
    await bucket.put("a", 0, ttl=1.9)
    await gone(bucket, "a")
    assert asyncio.get_running_loop().time() - started > 1.8


async def test_a_watch_of_an_empty_bucket_begins_with_an_empty_snapshot(bucket: Bucket[Any]) -> None:
    async with bucket.watch() as changes:
        assert await following(changes) == Snapshot(())


async def test_a_watch_begins_with_what_is_there_by_key_and_without_what_was_removed(
    bucket: Bucket[Any],
) -> None:
    b, a = await bucket.put("b", 1), await bucket.put("a", 2)
    await bucket.put("c", 3)
    await bucket.delete("c")
    async with bucket.watch() as changes:
        assert await following(changes) == Snapshot((Entry("a", 2, a), Entry("b", 1, b)))


async def test_a_watch_tells_of_changes_in_their_order(bucket: Bucket[Any]) -> None:
    async with bucket.watch() as changes:
        await following(changes)
        revisions = [await bucket.put(f"k{n}", n) for n in range(50)]
        for n, revision in enumerate(revisions):
            assert await following(changes) == Put(Entry(f"k{n}", n, revision))
        await bucket.delete("k7")
        removed = await following(changes)
    assert isinstance(removed, Removed)
    assert (removed.key, removed.reason) == ("k7", Removal.DELETED)
    assert removed.revision > revisions[-1]


async def test_a_watch_ends_up_with_the_last_of_many_writes_to_one_key(bucket: Bucket[Any]) -> None:
    async with bucket.watch() as changes:
        await following(changes)
        for n in range(50):
            await bucket.put("a", n)
        told = [-1]
        while told[-1] != 49:
            change = await following(changes)
            assert isinstance(change, Put)
            told.append(change.entry.value)
    assert told == sorted(told)


async def test_a_watch_of_a_prefix_tells_of_nothing_else(bucket: Bucket[Any]) -> None:
    one = await bucket.put("a.1", 1)
    await bucket.put("ab", 1)
    async with bucket.watch("a") as changes:
        assert await following(changes) == Snapshot((Entry("a.1", 1, one),))
        await bucket.put("b", 1)
        await bucket.put("ab", 2)
        await bucket.delete("ab")
        two = await bucket.put("a", 2)
        assert await following(changes) == Put(Entry("a", 2, two))


async def test_many_watchers_all_get_everything(bucket: Bucket[Any]) -> None:
    async with AsyncExitStack() as stack:
        watches = [await stack.enter_async_context(bucket.watch()) for _ in range(20)]
        for changes in watches:
            assert await following(changes) == Snapshot(())
        revisions = [await bucket.put(f"k{n}", n) for n in range(5)]
        expected = [Put(Entry(f"k{n}", n, revision)) for n, revision in enumerate(revisions)]
        for changes in watches:
            assert [await following(changes) for _ in expected] == expected


async def test_a_watch_that_begins_amid_writes_misses_none_of_them(bucket: Bucket[Any]) -> None:
    total = 300

    async def write() -> None:
        for n in range(total):
            await bucket.put(f"k{n % 30}", n)

    seen: dict[str, int] = {}
    writing = asyncio.create_task(write())
    async with asyncio.timeout(PATIENCE), bucket.watch() as changes:
        async for change in changes:
            if isinstance(change, Snapshot):
                seen = {entry.key: entry.value for entry in change.entries}
            elif isinstance(change, Put):
                seen[change.entry.key] = change.entry.value
            if seen.get(f"k{(total - 1) % 30}") == total - 1:
                break
    await writing
    assert seen == {entry.key: entry.value for entry in await bucket.entries()}


async def test_garbage_is_skipped_and_logged_and_can_be_overwritten(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    raw = await store.bucket("mixed", RawCodec())
    bucket: Bucket[Any] = await store.bucket("mixed", JsonCodec())
    good = await bucket.put("good", 1)
    await raw.put("bad", b"\xff{")
    assert await bucket.get("bad") is None
    assert await bucket.entries() == [Entry("good", 1, good)]
    async with bucket.watch() as changes:
        assert await following(changes) == Snapshot((Entry("good", 1, good),))
        await raw.put("worse", b"{")
        mended = await bucket.put("bad", 2)
        assert await following(changes) == Put(Entry("bad", 2, mended))
    assert "bucket 'mixed': the value of key 'bad' is skipped" in caplog.text


@pytest.mark.parametrize(
    "key", ["", ".", "a.", ".a", "a..b", "a b", "a/b", "a*", ">", "a.>", "ä", "a\r\nb", "x" * 513]
)
async def test_a_key_that_is_none_is_refused(bucket: Bucket[Any], key: str) -> None:
    with pytest.raises(InvalidRequest):
        await bucket.put(key, 1)
    with pytest.raises(InvalidRequest):
        await bucket.get(key)
    with pytest.raises(InvalidRequest):
        await bucket.delete(key)


@pytest.mark.parametrize("prefix", ["a.", "a*", ">"])
async def test_a_prefix_that_is_no_key_is_refused(bucket: Bucket[Any], prefix: str) -> None:
    with pytest.raises(InvalidRequest):
        await bucket.entries(prefix)
    with pytest.raises(InvalidRequest):
        bucket.watch(prefix)


@pytest.mark.parametrize("name", ["", "a.b", "a b", "x" * 65])
async def test_a_bucket_name_that_is_none_is_refused(store: Store, name: str) -> None:
    with pytest.raises(InvalidRequest):
        await store.bucket(name, JsonCodec())


@pytest.mark.parametrize("ttl", [0.0, 0.9, -1.0, float("nan"), float("inf")])
async def test_a_time_to_live_that_is_none_is_refused(bucket: Bucket[Any], ttl: float) -> None:
    with pytest.raises(InvalidRequest, match="ttl"):
        await bucket.put("a", 1, ttl=ttl)


async def test_the_largest_value_is_kept_and_a_larger_one_refused(store: Store) -> None:
    bucket = await store.bucket("large", RawCodec())
    largest = b"x" * MAX_VALUE_BYTES
    await bucket.put("a", largest, ttl=600)
    entry = await bucket.get("a")
    assert entry is not None
    assert entry.value == largest
    with pytest.raises(InvalidRequest, match="limit"):
        await bucket.put("a", largest + b"x")
