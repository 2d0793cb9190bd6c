"""Processing messages several at once, over the broker in memory, in an event loop where waiting is free."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from tests.fake_time import run_in_fake_time

from weft.errors import InvalidRequest, NotFound
from weft.messaging.broker import Consumer, Delivery, QueueSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.messaging.message import Message
from weft.messaging.middleware import acknowledging
from weft.messaging.processing import Handle, Processor, stacked

QUEUE = "work"


class Work:
    """A queue of messages, and what became of them."""

    def __init__(self, broker: MemoryBroker, consumer: Consumer) -> None:
        self.broker = broker
        self.consumer = consumer
        self.begun: list[str] = []
        self.done: list[str] = []

    async def send(self, *ids: str) -> None:
        for each in ids:
            await self.broker.enqueue(QUEUE, Message(each, b""))

    def processor(self, handle: Handle, concurrency: int = 3) -> Processor:
        return Processor(
            self.consumer, stacked(handle, acknowledging()), concurrency=concurrency, name="work"
        )

    async def take_a_second(self, delivery: Delivery) -> None:
        self.begun.append(delivery.message.id)
        await asyncio.sleep(1)
        self.done.append(delivery.message.id)

    async def hang(self, delivery: Delivery) -> None:
        self.begun.append(delivery.message.id)
        await asyncio.Event().wait()

    async def left(self) -> list[tuple[str, int]]:
        """What can be taken now, with how often it was delivered."""
        return sorted((each.message.id, each.deliveries) for each in await self.consumer.pull(100, wait=0))


def working(test: Callable[[Work], Awaitable[None]]) -> None:
    """Run `test` with an empty queue."""

    async def work() -> None:
        broker = MemoryBroker()
        await broker.declare_queue(QueueSettings(QUEUE, visibility_timeout=30.0))
        await test(Work(broker, await broker.queue_consumer(QUEUE)))

    run_in_fake_time(work())


def test_nothing_is_pulled_during_a_pause_and_what_is_under_way_goes_on() -> None:
    async def test(work: Work) -> None:
        await work.send("a")
        processor = work.processor(work.take_a_second)
        running = asyncio.create_task(processor.run())
        await asyncio.sleep(0.5)
        processor.pause()
        await work.send("b", "c")
        await asyncio.sleep(10)
        assert (work.begun, work.done) == (["a"], ["a"])
        processor.resume()
        await asyncio.sleep(2)
        assert work.done == ["a", "b", "c"]
        # A pull that is called off and wanted again at once is made anew.
        processor.pause()
        processor.resume()
        await work.send("d")
        await asyncio.sleep(2)
        assert work.done == ["a", "b", "c", "d"]
        processor.pause()
        processor.drain()
        await running
        assert await work.left() == []

    working(test)


def test_as_many_messages_are_pulled_as_there_are_free_slots() -> None:
    async def test(work: Work) -> None:
        await work.send(*"abcdefgh")
        processor = work.processor(work.take_a_second)
        running = asyncio.create_task(processor.run())
        await asyncio.sleep(0.5)
        assert (processor.in_flight, work.begun) == (3, ["a", "b", "c"])
        assert (await work.broker.queue_stats(QUEUE)).ready == 5
        await asyncio.sleep(3)
        assert sorted(work.done) == list("abcdefgh")
        assert (await work.broker.queue_stats(QUEUE)).in_flight == 0
        processor.drain()
        await running

    working(test)


def test_a_slow_message_holds_up_no_other() -> None:
    async def test(work: Work) -> None:
        async def handle(delivery: Delivery) -> None:
            await (work.hang if delivery.message.id == "slow" else work.take_a_second)(delivery)

        processor = work.processor(handle, concurrency=2)
        running = asyncio.create_task(processor.run())
        await work.send("slow", *"abc")
        await asyncio.sleep(4)
        assert work.done == list("abc")
        await processor.drained(0)
        await running

    working(test)


def test_draining_ends_a_pull_that_waits_and_finishes_what_is_under_way() -> None:
    async def test(work: Work) -> None:
        await work.send("a")
        processor = work.processor(work.take_a_second)
        running = asyncio.create_task(processor.run())
        await asyncio.sleep(0.5)
        processor.drain()
        await work.send("b")
        await running
        assert work.done == ["a"]
        assert await work.left() == [("b", 1)]

    working(test)


def test_what_does_not_end_in_time_is_handed_back() -> None:
    async def test(work: Work) -> None:
        await work.send("a", "b")
        processor = work.processor(work.hang)
        running = asyncio.create_task(processor.run())
        await asyncio.sleep(1)
        await processor.drained(5)
        await running
        assert asyncio.get_running_loop().time() == pytest.approx(6)
        assert processor.in_flight == 0
        assert await work.left() == [("a", 2), ("b", 2)]

    working(test)


def test_cancelling_hands_back_what_is_under_way_even_if_not_begun() -> None:
    async def test(work: Work) -> None:
        await work.send("a", "b")
        processor = work.processor(work.hang)
        running = asyncio.create_task(processor.run())
        while not processor.in_flight:  # noqa: ASYNC110 -- between two turns of the loop there is no event
            await asyncio.sleep(0)
        assert work.begun == []
        running.cancel()
        await asyncio.wait([running])
        assert running.cancelled()
        assert await work.left() == [("a", 2), ("b", 2)]

    working(test)


def test_an_unavailable_broker_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test(work: Work) -> None:
        processor = work.processor(work.take_a_second)
        running = asyncio.create_task(processor.run())
        await asyncio.sleep(1)
        work.broker.interrupt()
        await asyncio.sleep(60)
        assert not running.done()
        work.broker.resume()
        await work.send("a")
        await asyncio.sleep(10)
        assert work.done == ["a"]
        work.broker.interrupt()
        await asyncio.sleep(1)
        processor.drain()
        await running

    with caplog.at_level(logging.INFO, "weft.messaging"):
        working(test)
    assert "work: waiting for the broker: the broker in memory was interrupted" in caplog.text
    assert "work: the broker is back" in caplog.text


def test_a_removed_queue_is_told_when_what_is_under_way_has_ended() -> None:
    async def test(work: Work) -> None:
        await work.send("a")
        running = asyncio.create_task(work.processor(work.take_a_second).run())
        await asyncio.sleep(0.5)
        await work.broker.remove_queue(QUEUE)
        with pytest.raises(NotFound):
            await running
        assert work.done == ["a"]

    working(test)


def test_a_failing_handle_is_heard_of_and_its_message_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test(work: Work) -> None:
        async def handle(delivery: Delivery) -> None:
            if delivery.deliveries == 1:
                raise ValueError("nonsense")
            await work.take_a_second(delivery)

        await work.send("a")
        processor = work.processor(handle, concurrency=1)
        running = asyncio.create_task(processor.run())
        await asyncio.sleep(29)
        assert work.begun == []
        await asyncio.sleep(3)
        assert work.done == ["a"]
        processor.drain()
        await running

    working(test)
    assert "work: message a failed" in caplog.text


def test_a_processor_without_slots_is_refused() -> None:
    async def test(work: Work) -> None:
        with pytest.raises(InvalidRequest):
            work.processor(work.hang, concurrency=0)

    working(test)
