"""What signals promise, whichever store tells them."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest

from weft.errors import InvalidRequest
from weft.store.bucket import Store
from weft.store.signals import Listener, Signals

PATIENCE = 60.0


@pytest.fixture
def signals(store: Store) -> Signals:
    return store.signals("tasks")


async def heard(listener: Listener, until: str) -> list[str | None]:
    """What a listener is told up to and with the key `until`."""
    found: list[str | None] = []
    while until not in found:
        found.append(await listener.next(PATIENCE))
        assert len(found) < 10_000
    return found


async def test_a_listener_hears_of_its_key_and_those_below_it_and_of_no_other(
    store: Store, signals: Signals
) -> None:
    async with signals.listen("q.1") as one, signals.listen("q") as all_of_q:
        await store.signals("others").send("q.1")
        for key in ("q.10", "qq.1", "q.1", "q.1.progress", "q"):
            await signals.send(key)
        assert await heard(all_of_q, "q") == ["q.10", "q.1", "q.1.progress", "q"]
        assert await heard(one, "q.1.progress") == ["q.1", "q.1.progress"]
        assert await one.next(0.01) is None


async def test_what_comes_while_nobody_asks_is_told_once_for_each_key(signals: Signals) -> None:
    async with signals.listen("q") as listener, signals.listen("q.end") as end:
        for _ in range(100):
            await signals.send("q.a")
            await signals.send("q.b")
        await signals.send("q.end")
        # What the one hears the other has been told too.
        assert await end.next(PATIENCE) == "q.end"
        told = await heard(listener, "q.end")
        assert told[:2] == ["q.a", "q.b"]
        assert len(told) < 50


async def test_who_waits_is_woken(signals: Signals) -> None:
    async with signals.listen("q") as listener:
        waiting = asyncio.create_task(listener.next(PATIENCE))
        await asyncio.sleep(0)
        await signals.send("q.x")
        assert await waiting == "q.x"


async def test_who_falls_too_far_behind_is_told_that_it_missed_some(signals: Signals) -> None:
    async with signals.listen("q") as listener, signals.listen("end") as end:
        for number in range(6000):
            await signals.send(f"q.{number}")
        await signals.send("end")
        assert await end.next(PATIENCE) == "end"
        told = [await listener.next(1.0) for _ in range(4)]
        assert None in told


async def test_a_thousand_listeners_at_once_each_hear_of_their_own(signals: Signals) -> None:
    async with AsyncExitStack() as stack:
        listeners = [await stack.enter_async_context(signals.listen(f"q.{n}")) for n in range(1000)]
        for number in range(1000):
            await signals.send(f"q.{number}")
        async with asyncio.timeout(PATIENCE):
            told = await asyncio.gather(*(each.next(PATIENCE) for each in listeners))
        assert told == [f"q.{n}" for n in range(1000)]


async def test_a_key_or_name_that_is_none_is_refused(store: Store, signals: Signals) -> None:
    for key in ("", "a.", "*", "a.>", "a b", "a\r\nPUB x 0\r\n"):
        with pytest.raises(InvalidRequest):
            await signals.send(key)
        with pytest.raises(InvalidRequest):
            async with signals.listen(key):
                pass
    with pytest.raises(InvalidRequest):
        store.signals("a.b")
