"""The broker in NATS, beyond what all brokers promise."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.conformance.nats_broker import ConnectedBroker, connected
from tests.servers import NatsServer, nats_server

from weft.aio.poll import until
from weft.aio.tasks import TaskOwner
from weft.errors import NotFound, QueueFull, Unavailable
from weft.messaging.broker import (
    ALL,
    Consumer,
    Delivery,
    GroupSettings,
    Priority,
    QueueSettings,
    TopicSettings,
)
from weft.messaging.message import Message

PATIENCE = 60.0
VISIBILITY = 1.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[NatsServer]:
    async with nats_server(tmp_path) as running:
        yield running


@pytest.fixture
async def broker(server: NatsServer) -> AsyncIterator[ConnectedBroker]:
    made = await connected(server)
    yield made
    await made.aclose()


def _message(name: str, body: bytes = b"", **headers: str) -> Message:
    return Message(name, body, headers)


async def _until(condition: Callable[[], bool]) -> None:
    async def holds() -> bool:
        return condition()

    async with asyncio.timeout(PATIENCE):
        await until(holds)


async def _pull(consumer: Consumer, number: int) -> list[Delivery]:
    got: list[Delivery] = []
    async with asyncio.timeout(PATIENCE):
        while len(got) < number:
            got += await consumer.pull(number - len(got), wait=5)
    return got


class Traffic:
    """Producers and consumers that go on through every outage."""

    def __init__(self, producing: ConnectedBroker, consuming: ConnectedBroker) -> None:
        self._producing = producing
        self._consuming = consuming
        self.confirmed: set[str] = set()
        self.done: Counter[str] = Counter()
        self.over = False

    async def produce(self, producer: int) -> None:
        """Enqueue one after the other."""
        number = 0
        while not self.over:
            name = f"{producer}-{number}"
            number += 1
            try:
                await self._producing.enqueue(
                    "q", _message(name, os.urandom(256)), priority=Priority(number % 3)
                )
            except Unavailable:
                await asyncio.sleep(0.02)
            else:
                self.confirmed.add(name)

    async def consume(self) -> None:
        """Take what there is, and leave some lying at first, so that some are under way at every moment."""
        consumer = await self._consuming.queue_consumer("q")
        while True:
            try:
                for each in await consumer.pull(64, wait=1):
                    self.done[each.message.id] += 1
                    if hash(each.message.id) % 10 or each.deliveries > 1:
                        await each.ack()
            except Unavailable:
                await asyncio.sleep(0.02)

    async def confirmed_more_than(self, number: int) -> None:
        """Wait until so many are."""
        await _until(lambda: len(self.confirmed) > number)

    async def all_done(self) -> None:
        """Wait until all that was confirmed came."""
        await _until(lambda: self.confirmed <= self.done.keys())


async def test_a_kill_in_the_midst_of_thousands_loses_none_that_were_confirmed(
    server: NatsServer, broker: ConnectedBroker
) -> None:
    await broker.declare_queue(QueueSettings("q", visibility_timeout=VISIBILITY))
    other = await connected(server)
    traffic = Traffic(broker, other)
    async with TaskOwner("test") as tasks:
        producers = [tasks.start(traffic.produce(number), name="produce") for number in range(64)]
        for _ in range(2):
            tasks.start(traffic.consume(), name="consume")
        await traffic.confirmed_more_than(5000)
        await server.restart()
        await traffic.confirmed_more_than(len(traffic.confirmed) + 5000)
        await server.restart()
        traffic.over = True
        await asyncio.wait(producers, timeout=PATIENCE)
        await traffic.all_done()
    await other.aclose()


async def test_messages_come_back_as_they_were(broker: ConnectedBroker) -> None:
    await broker.declare_queue(QueueSettings("q"))
    headers = {
        "spaces": "  at both ends ",
        "quoted": '"yes"',
        "quote": '"',
        "empty": "",
        "colon": "a: b",
        "status": "503",
        "nats-schedule": "@at never",
        "percent": "100%25",
    }
    sent = _message("odd/id:%1", bytes(range(256)), **headers)
    await broker.enqueue("q", sent)
    await broker.enqueue("q", sent, delay=0.01, priority=Priority.LOW)
    consumer = await broker.queue_consumer("q")
    [now, later] = await _pull(consumer, 2)
    assert now.message == later.message == sent
    await now.dead_letter("ä broken\r\nNats-Rollup: all\t“pipe”")
    [letter] = await broker.peek("q", limit=1, dead=True)
    assert (letter.message, letter.reason) == (sent, "ä broken\r\nNats-Rollup: all\t“pipe”")


async def test_two_that_bury_the_same_message_leave_one_dead_letter(broker: ConnectedBroker) -> None:
    await broker.declare_queue(QueueSettings("q", visibility_timeout=VISIBILITY))
    await broker.enqueue("q", _message("m"), priority=Priority.HIGH)
    consumer = await broker.queue_consumer("q")
    [slow] = await _pull(consumer, 1)
    [again] = await _pull(consumer, 1)
    await slow.dead_letter("first")
    await again.dead_letter("second")
    assert [each.reason for each in await broker.peek("q", limit=9, dead=True)] == ["first"]
    assert await broker.redrive("q", ["m", "other"]) == 1
    [redriven] = await _pull(consumer, 1)
    assert (redriven.lane, redriven.deliveries) == (Priority.HIGH, 1)
    assert redriven.sent_at == pytest.approx(slow.sent_at)
    assert (await broker.queue_stats("q")).dead == 0


async def test_what_was_not_sent_by_weft_is_thrown_away(server: NatsServer, broker: ConnectedBroker) -> None:
    await broker.declare_queue(QueueSettings("q"))
    client = await broker._connection.client()
    for headers in (None, {"Weft-Id": "a b"}, {"Weft-Id": "x", "under_score": "1"}):
        await client.request("queues.q.1", b"junk", headers=headers, timeout=PATIENCE)
    await broker.enqueue("q", _message("good"))
    consumer = await broker.queue_consumer("q")
    [good] = await _pull(consumer, 1)
    assert good.message.id == "good"
    await good.ack()

    async def empty() -> bool:
        stats = await broker.queue_stats("q")
        return not stats.ready and not stats.in_flight

    async with asyncio.timeout(PATIENCE):
        await until(empty)


async def test_a_pull_that_is_cancelled_again_and_again_loses_nothing(broker: ConnectedBroker) -> None:
    await broker.declare_queue(QueueSettings("q", visibility_timeout=30.0))
    consumer = await broker.queue_consumer("q")
    seen: list[str] = []
    for number in range(300):
        pulling = asyncio.create_task(consumer.pull(2, wait=5))
        sending = asyncio.create_task(
            broker.enqueue("q", _message(f"{number}"), priority=Priority(number % 3))
        )
        for _ in range(number % 12):
            await asyncio.sleep(0)
        pulling.cancel()
        await asyncio.wait([pulling, sending])
        if not pulling.cancelled():
            seen += [each.message.id for each in pulling.result()]
    while len(set(seen)) < 300:
        seen += [each.message.id for each in await _pull(consumer, 1)]
    assert len(set(seen)) == 300


async def test_a_removed_queue_is_told_to_who_waits(broker: ConnectedBroker) -> None:
    await broker.declare_queue(QueueSettings("q"))
    consumer = await broker.queue_consumer("q")
    waiting = asyncio.create_task(consumer.pull(1, wait=PATIENCE))
    assert not (await asyncio.wait([waiting], timeout=0.2))[0]
    await broker.remove_queue("q")
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(NotFound):
            await waiting


async def test_groups_of_the_largest_topics_keep_their_partitions_in_order(broker: ConnectedBroker) -> None:
    await broker.declare_topic(TopicSettings("t", partitions=16))
    await broker.declare_group(GroupSettings("t", "g", start=ALL))
    for number in range(10):
        await asyncio.gather(
            *(broker.publish("t", _message(f"{each}-{number}"), partition=each) for each in range(16))
        )
    seen: dict[int, list[str]] = {}

    async def work() -> None:
        consumer = await broker.group_consumer("t", "g")
        while True:
            for each in await consumer.pull(3, wait=1):
                assert each.deliveries == 1
                seen.setdefault(each.lane, []).append(each.message.id)
                await asyncio.sleep(0)
                await each.ack()

    async with TaskOwner("test") as tasks:
        workers = [tasks.start(work(), name="work") for _ in range(3)]
        await _until(lambda: sum(map(len, seen.values())) == 160 or any(each.done() for each in workers))
    assert seen == {each: [f"{each}-{number}" for number in range(10)] for each in range(16)}


async def test_a_full_queue_takes_again_what_there_is_room_for(broker: ConnectedBroker) -> None:
    await broker.declare_queue(QueueSettings("q", max_length=3))
    for name in "abc":
        await broker.enqueue("q", _message(name))
    with pytest.raises(QueueFull):
        await broker.enqueue("q", _message("d"), priority=Priority.HIGH)
    consumer = await broker.queue_consumer("q")
    [first] = await _pull(consumer, 1)
    with pytest.raises(QueueFull):
        await broker.enqueue("q", _message("d"))
    await first.dead_letter("out of the way")

    async def taken() -> bool:
        try:
            await broker.enqueue("q", _message("d"))
        except QueueFull:
            return False
        return True

    async with asyncio.timeout(PATIENCE):
        await until(taken)
    with pytest.raises(QueueFull):
        await broker.redrive("q", ["a"])
    assert len(await broker.peek("q", limit=9, dead=True)) == 1
