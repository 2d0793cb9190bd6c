"""What broadcasts promise, whichever store carries them."""

from __future__ import annotations

import asyncio

import pytest

from weft.errors import InvalidRequest
from weft.store.broadcast import MAX_BROADCAST_BYTES, Broadcast
from weft.store.bucket import Store

PATIENCE = 60.0


@pytest.fixture
def broadcast(store: Store) -> Broadcast:
    return store.broadcast("spans")


async def test_all_who_listen_hear_every_message_in_order_and_those_of_no_other_name(
    store: Store, broadcast: Broadcast
) -> None:
    assert await broadcast.send("early", b"nobody listens")
    async with broadcast.listen() as one, store.broadcast("spans").listen() as two:
        await store.broadcast("others").send("a", b"not for them")
        await store.broadcast("spans", of_members=True).send("a", b"not for them either")
        for number in range(20):
            assert await broadcast.send(f"a.{number}", bytes([number]) * 1000)
        async with asyncio.timeout(PATIENCE):
            for listener in (one, two):
                told = [await listener.next() for _ in range(20)]
                assert told == [(f"a.{number}", bytes([number]) * 1000) for number in range(20)]
                assert listener.dropped == 0


async def test_what_members_send_is_heard_under_its_key(store: Store) -> None:
    from_members = store.broadcast("traffic", of_members=True)
    async with from_members.listen() as listener, asyncio.timeout(PATIENCE):
        await from_members.send("agent.planner.1", b"{}")
        assert await from_members.settled(PATIENCE)
        assert await listener.next() == ("agent.planner.1", b"{}")


async def test_who_waits_is_woken(broadcast: Broadcast) -> None:
    async with broadcast.listen() as listener, asyncio.timeout(PATIENCE):
        waiting = asyncio.create_task(listener.next())
        await asyncio.sleep(0)
        await broadcast.send("a", b"news")
        assert (await waiting).data == b"news"


async def test_what_a_listener_does_not_ask_for_is_dropped_beyond_a_bound_and_counted(
    broadcast: Broadcast,
) -> None:
    async with broadcast.listen() as idle, broadcast.listen() as busy, asyncio.timeout(PATIENCE):
        for _ in range(40):
            assert await broadcast.send("a", bytes(MAX_BROADCAST_BYTES))
            await busy.next()
        assert 0 < idle.dropped < 40
        assert busy.dropped == 0
        assert (await idle.next()).key == "a"


async def test_what_is_too_large_or_has_a_bad_key_is_refused(store: Store, broadcast: Broadcast) -> None:
    with pytest.raises(InvalidRequest):
        await broadcast.send("a", bytes(MAX_BROADCAST_BYTES + 1))
    for key in ("", "a.", "*", "a.>", "a b", "a\r\nPUB x 0\r\n"):
        with pytest.raises(InvalidRequest):
            await broadcast.send(key, b"")
    with pytest.raises(InvalidRequest):
        store.broadcast("a.b")
