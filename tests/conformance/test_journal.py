"""What every journal promises, whichever store it is in."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.conformance.codecs import JsonCodec, RawCodec

from weft.errors import InvalidRequest
from weft.store.bucket import Store
from weft.store.journal import MAX_RECORD_BYTES, Journal, JournalEntry, JournalLimits

PATIENCE = 60.0


@pytest.fixture
async def journal(store: Store) -> Journal[Any]:
    return await store.journal("log", JsonCodec())


async def records(journal: Journal[Any], limit: int = 100, prefix: str = "") -> list[Any]:
    return [each.record for each in await journal.recent(limit, prefix)]


async def following(entries: AsyncIterator[JournalEntry[Any]]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return (await anext(entries)).record


async def test_entries_come_back_in_order_with_who_wrote_them_where_and_when(journal: Journal[Any]) -> None:
    first = await journal.append("agent.a.1", {"n": 1})
    second = await journal.append("control.b", {"n": 2})
    assert first < second
    entries = await journal.recent()
    assert [(each.tail, each.record, each.position) for each in entries] == [
        ("agent.a.1", {"n": 1}, first),
        ("control.b", {"n": 2}, second),
    ]
    assert all(abs(each.written_at - time.time()) < PATIENCE for each in entries)


async def test_an_empty_journal_has_no_recent_entries(journal: Journal[Any]) -> None:
    assert await journal.recent() == []
    assert await journal.recent(1, "a") == []


async def test_recent_is_the_last_ones_of_a_prefix_however_far_back_they_are(journal: Journal[Any]) -> None:
    for n in range(5):
        await journal.append("rare.x", n)
    for n in range(60):
        await journal.append("rarely", n)
    assert await records(journal, 2, "rare") == [3, 4]
    assert await records(journal, 100, "rare.x") == [0, 1, 2, 3, 4]
    assert await records(journal, 3) == [57, 58, 59]


async def test_who_follows_gets_each_entry_that_is_written_from_then_on(journal: Journal[Any]) -> None:
    await journal.append("a", "before")
    async with journal.follow() as all_entries, journal.follow("b") as some:
        for tail in ("a", "b.1", "bc", "b"):
            await journal.append(tail, tail)
        assert [await following(all_entries) for _ in range(4)] == ["a", "b.1", "bc", "b"]
        assert [await following(some) for _ in range(2)] == ["b.1", "b"]


async def test_beyond_its_size_a_journal_forgets_the_oldest(store: Store) -> None:
    journal = await store.journal("small", JsonCodec(), limits=JournalLimits(max_bytes=64 * 1024))
    for n in range(40):
        await journal.append("a", {"n": n, "fill": "x" * 4000})
    kept = [each["n"] for each in await records(journal)]
    assert kept[-1] == 39
    assert 5 < len(kept) < 20


async def test_garbage_in_a_journal_is_skipped(store: Store, journal: Journal[Any]) -> None:
    raw = await store.journal("log", RawCodec())
    async with journal.follow() as entries:
        await raw.append("a", b"\xff")
        await journal.append("a", 1)
        assert await following(entries) == 1
    assert await records(journal) == [1]


async def test_bad_tails_large_records_and_absurd_limits_are_refused(journal: Journal[Any]) -> None:
    for tail in ("", "a.", "*", ">", "a b", "a.>"):
        with pytest.raises(InvalidRequest):
            await journal.append(tail, 1)
    with pytest.raises(InvalidRequest, match="limit"):
        await journal.append("a", "x" * MAX_RECORD_BYTES)
    assert await journal.append("a", "x" * (MAX_RECORD_BYTES - 2))
    for limit in (0, 10**9):
        with pytest.raises(InvalidRequest):
            await journal.recent(limit)
