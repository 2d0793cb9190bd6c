"""What the broker in memory can do beyond the contract, and how it keeps small."""

from __future__ import annotations

import asyncio

import pytest
from tests.fake_time import run_in_fake_time

from weft.errors import Unavailable
from weft.messaging.broker import GroupSettings, QueueSettings, TopicSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.messaging.message import Message


def _message(size: int = 0) -> Message:
    return Message("m", b"x" * size)


def test_queues_hold_no_more_bytes_than_they_may_together() -> None:
    async def test() -> None:
        broker = MemoryBroker(max_bytes=100)
        for name in ("a", "b"):
            await broker.declare_queue(QueueSettings(name))
        await broker.enqueue("a", _message(60))
        with pytest.raises(Unavailable, match="the broker in memory is full"):
            await broker.enqueue("b", _message(60))
        [delivery] = await (await broker.queue_consumer("a")).pull(1, wait=0)
        await delivery.dead_letter("no")
        with pytest.raises(Unavailable):
            await broker.enqueue("b", _message(60))
        await broker.purge("a", dead=True)
        await broker.enqueue("b", _message(60))
        await broker.remove_queue("b")
        await broker.enqueue("a", _message(100))

    run_in_fake_time(test())


def test_an_interruption_reaches_those_who_wait_and_ends() -> None:
    async def test() -> None:
        broker = MemoryBroker()
        await broker.declare_queue(QueueSettings("q"))
        consumer = await broker.client().queue_consumer("q")
        waiting = asyncio.ensure_future(consumer.pull(1, wait=1000))
        await asyncio.sleep(1)
        broker.interrupt()
        with pytest.raises(Unavailable):
            await waiting
        with pytest.raises(Unavailable):
            await broker.enqueue("q", _message())
        broker.resume()
        await broker.enqueue("q", _message())
        assert len(await consumer.pull(1, wait=0)) == 1

    run_in_fake_time(test())


def test_a_client_that_ends_gives_back_what_it_has_at_once() -> None:
    async def test() -> None:
        broker = MemoryBroker()
        await broker.declare_queue(QueueSettings("q"))
        await broker.enqueue("q", _message())
        passer_by = broker.client()
        [held] = await (await passer_by.queue_consumer("q")).pull(1, wait=0)
        await passer_by.aclose()
        [delivery] = await (await broker.queue_consumer("q")).pull(1, wait=0)
        await held.ack()
        assert delivery.deliveries == 2
        assert (await broker.queue_stats("q")).in_flight == 1

    run_in_fake_time(test())


def test_what_makes_room_in_a_topic_leaves_its_groups_too() -> None:
    async def test() -> None:
        broker = MemoryBroker()
        await broker.declare_topic(TopicSettings("t", max_bytes=100))
        await broker.declare_group(GroupSettings("t", "g"))
        for _ in range(10):
            await broker.publish("t", _message(30))
        stats = await broker.topic_stats("t")
        assert (stats.messages, stats.size, stats.first_sequence, stats.last_sequence) == (3, 90, 8, 10)
        assert stats.groups[0].pending == 3

    run_in_fake_time(test())


def test_consumers_take_turns_at_what_comes_late() -> None:
    """Whoever wakes first may be gone before it takes anything: then the next one hears of it."""

    async def test() -> None:
        broker = MemoryBroker()
        await broker.declare_queue(QueueSettings("q"))
        consumers = [await broker.queue_consumer("q") for _ in range(3)]
        pulls = [asyncio.ensure_future(each.pull(1, wait=1000)) for each in consumers]
        await asyncio.sleep(1)
        await broker.enqueue("q", _message())
        pulls[0].cancel()
        await asyncio.wait(pulls, return_when=asyncio.ALL_COMPLETED, timeout=1)
        assert [each.done() for each in pulls] == [True, True, False]
        assert len(pulls[1].result()) == 1
        await broker.enqueue("q", _message(), delay=5)
        assert len(await pulls[2]) == 1

    run_in_fake_time(test())
