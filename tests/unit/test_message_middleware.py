"""What is put around the processing of messages, over the broker in memory; waiting takes no time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest
from prometheus_client import CollectorRegistry
from tests.fake_time import run_in_fake_time

from weft.errors import InvalidRequest, TimedOut, Unavailable
from weft.messaging.broker import Consumer, Delivery, QueueSettings
from weft.messaging.brokers.memory import MemoryBroker
from weft.messaging.message import Message
from weft.messaging.middleware import (
    LeaseLost,
    MessageMetrics,
    TooManyDeliveries,
    acknowledging,
    extending,
    measured,
    retrying,
    time_limited,
)
from weft.messaging.processing import Handle, Middleware, stacked

QUEUE = "work"
VISIBILITY = 10.0


class Queue:
    """A queue with one message, `m`."""

    def __init__(self, broker: MemoryBroker, consumer: Consumer) -> None:
        self.broker = broker
        self._consumer = consumer
        self.given_up: list[BaseException] = []

    async def next(self) -> Delivery:
        """The message, when it comes."""
        [delivery] = await self._consumer.pull(1, wait=1000)
        return delivery

    async def gone(self) -> bool:
        """Whether the message was done with."""
        stats = await self.broker.queue_stats(QUEUE)
        return (stats.ready, stats.in_flight, stats.delayed) == (0, 0, 0)

    async def give_up(self, delivery: Delivery, error: BaseException) -> None:
        self.given_up.append(error)
        await delivery.dead_letter(str(error))

    def retrying(self, max_deliveries: int = 3) -> Middleware:
        """With pauses of 1, 2, 3 s."""
        return retrying(float, max_deliveries, self.give_up)


def with_queue(test: Callable[[Queue], Awaitable[None]]) -> None:
    """Run `test` with a queue."""

    async def work() -> None:
        broker = MemoryBroker()
        await broker.declare_queue(QueueSettings(QUEUE, visibility_timeout=VISIBILITY))
        await broker.enqueue(QUEUE, Message("m", b""))
        await test(Queue(broker, await broker.queue_consumer(QUEUE)))

    run_in_fake_time(work())


def now() -> float:
    return asyncio.get_running_loop().time()


def taking(seconds: float) -> Handle:
    """A handle that takes so long."""

    async def handle(delivery: Delivery) -> None:
        await asyncio.sleep(seconds)

    return handle


def raising(error: BaseException) -> Handle:
    """A handle that fails."""

    async def handle(delivery: Delivery) -> None:
        raise error

    return handle


def test_the_first_middleware_is_the_outermost() -> None:
    order: list[str] = []

    def marking(name: str) -> Middleware:
        def around(inner: Handle) -> Handle:
            async def handle(delivery: Delivery) -> None:
                order.append(name)
                await inner(delivery)

            return handle

        return around

    async def test(queue: Queue) -> None:
        await stacked(taking(0), marking("outer"), marking("inner"))(await queue.next())

    with_queue(test)
    assert order == ["outer", "inner"]


def test_only_what_was_processed_is_acknowledged() -> None:
    async def test(queue: Queue) -> None:
        with pytest.raises(ValueError, match="no"):
            await stacked(raising(ValueError("no")), acknowledging())(await queue.next())
        assert not await queue.gone()
        await stacked(taking(1), acknowledging())(await queue.next())
        assert await queue.gone()

    with_queue(test)


def test_an_acknowledgement_that_is_not_taken_is_no_failure_of_the_work() -> None:
    async def test(queue: Queue) -> None:
        async def handle(delivery: Delivery) -> None:
            queue.broker.interrupt()

        await stacked(handle, queue.retrying(1), acknowledging())(await queue.next())
        queue.broker.resume()
        assert queue.given_up == []
        assert (await queue.next()).deliveries == 2

    with_queue(test)


def test_a_failed_message_comes_again_after_longer_and_longer_pauses_until_it_is_given_up() -> None:
    failure = ValueError("broken")

    async def test(queue: Queue) -> None:
        handle = stacked(raising(failure), queue.retrying(3), acknowledging())
        for time in (0, 1, 3):
            delivery = await queue.next()
            assert now() == pytest.approx(time)
            assert queue.given_up == []
            await handle(delivery)
        assert queue.given_up == [failure]
        assert await queue.gone()
        [dead] = await queue.broker.peek(QUEUE, limit=1, dead=True)
        assert dead.reason == "broken"

    with_queue(test)


def test_what_makes_no_sense_is_given_up_at_once() -> None:
    async def test(queue: Queue) -> None:
        await stacked(raising(InvalidRequest("no JSON")), queue.retrying())(await queue.next())
        assert [str(each) for each in queue.given_up] == ["no JSON"]

    with_queue(test)


def test_a_message_that_kills_whoever_has_it_is_given_up_unseen() -> None:
    seen: list[int] = []

    async def test(queue: Queue) -> None:
        async def handle(delivery: Delivery) -> None:
            seen.append(delivery.deliveries)

        for _ in range(2):
            await queue.next()  # and die
        await stacked(handle, queue.retrying(2))(await queue.next())
        [error] = queue.given_up
        assert isinstance(error, TooManyDeliveries)

    with_queue(test)
    assert seen == []


def test_what_cannot_be_given_up_is_tried_again() -> None:
    async def test(queue: Queue) -> None:
        failures: list[Exception] = [Unavailable("the store is away"), RuntimeError("a bug")]

        async def give_up(delivery: Delivery, error: BaseException) -> None:
            if failures:
                raise failures.pop()
            await queue.give_up(delivery, error)

        handle = stacked(raising(ValueError("no")), retrying(float, 1, give_up))
        for _ in range(3):
            await handle(await queue.next())
        assert len(queue.given_up) == 1
        assert await queue.gone()

    with_queue(test)


def test_a_cancelled_message_is_given_back_at_once() -> None:
    async def test(queue: Queue) -> None:
        work = asyncio.ensure_future(stacked(taking(5), queue.retrying(1))(await queue.next()))
        await asyncio.sleep(1)
        work.cancel()
        await asyncio.wait([work])
        assert work.cancelled()
        assert (await queue.next()).deliveries == 2
        assert now() == pytest.approx(1)
        assert queue.given_up == []

    with_queue(test)


@pytest.mark.parametrize("seconds", [0.0, 1.0, VISIBILITY * 10])
def test_the_lease_is_extended_for_as_long_as_the_work_takes(seconds: float) -> None:
    async def test(queue: Queue) -> None:
        delivery = await queue.next()
        other = asyncio.ensure_future(queue.next())
        await stacked(taking(seconds), acknowledging(), extending(3))(delivery)
        assert await queue.gone()
        assert not other.done()
        assert len(asyncio.all_tasks()) == 2
        other.cancel()
        await asyncio.wait([other])

    with_queue(test)


def test_an_outage_shorter_than_the_lease_is_borne() -> None:
    async def test(queue: Queue) -> None:
        work = asyncio.ensure_future(stacked(taking(50), acknowledging(), extending(3))(await queue.next()))
        await asyncio.sleep(2)
        queue.broker.interrupt()
        await asyncio.sleep(6)
        queue.broker.resume()
        await work
        assert await queue.gone()

    with_queue(test)


def test_work_whose_lease_is_lost_is_cancelled_and_left_to_others() -> None:
    ended: list[str] = []

    async def test(queue: Queue) -> None:
        async def handle(delivery: Delivery) -> None:
            try:
                await asyncio.sleep(1000)
            finally:
                ended.append("cancelled")

        late = extending(VISIBILITY * 2)
        with pytest.raises(LeaseLost):
            await stacked(handle, late)(await queue.next())
        assert now() == pytest.approx(VISIBILITY * 2)
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        await stacked(handle, queue.retrying(1), late)(await queue.next())
        assert queue.given_up != []  # at its second delivery, unseen
        assert ended == ["cancelled"]

    with_queue(test)


def test_a_lost_lease_is_no_failure() -> None:
    async def test(queue: Queue) -> None:
        await stacked(taking(1000), queue.retrying(1), extending(VISIBILITY * 2))(await queue.next())
        assert queue.given_up == []
        assert (await queue.next()).deliveries == 2

    with_queue(test)


def test_cancelling_from_outside_is_not_taken_for_a_lost_lease() -> None:
    async def test(queue: Queue) -> None:
        work = asyncio.ensure_future(stacked(taking(1000), extending(VISIBILITY * 2))(await queue.next()))
        await asyncio.sleep(VISIBILITY * 2 - 1)
        asyncio.get_running_loop().call_at(VISIBILITY * 2, work.cancel)
        await asyncio.wait([work])
        assert work.cancelled()

    with_queue(test)


def test_work_that_takes_too_long_is_cut_off() -> None:
    async def test(queue: Queue) -> None:
        with pytest.raises(TimedOut, match=r"message m was not processed within 5 s"):
            await stacked(taking(6), time_limited(5))(await queue.next())
        await stacked(taking(4), time_limited(5))(await queue.next())
        with pytest.raises(TimeoutError, match="its own"):
            await stacked(raising(TimeoutError("its own")), time_limited(5))(await queue.next())

    with_queue(test)


def test_metrics_count_and_time_what_is_processed() -> None:
    registry = CollectorRegistry()
    metrics = MessageMetrics(registry)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, {"channel": "queue/work", **labels})

    async def test(queue: Queue) -> None:
        measuring = measured(metrics.of("queue/work"))
        await stacked(taking(0), measuring)(await queue.next())
        with pytest.raises(ValueError, match="no"):
            await stacked(raising(ValueError("no")), measuring)(await queue.next())
        work = asyncio.ensure_future(stacked(taking(5), measuring)(await queue.next()))
        await asyncio.sleep(1)
        assert value("weft_messages_in_flight") == 1
        work.cancel()
        await asyncio.wait([work])

    with_queue(test)
    outcomes: Sequence[str] = ("succeeded", "failed", "cancelled")
    assert [value("weft_messages_processed_total", outcome=each) for each in outcomes] == [1, 1, 1]
    assert value("weft_message_processing_seconds_count") == 3
    assert value("weft_messages_in_flight") == 0
