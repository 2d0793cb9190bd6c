"""What brokers promise beyond the death of their process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from tests.conformance.broker_scene import (
    RECOVERY,
    VISIBILITY,
    Scene,
    bodies,
    eventually,
    message,
    pull,
    retried,
    scene,
)
from tests.conformance.running_broker import RunningBroker

from weft.errors import Unavailable
from weft.messaging.broker import Consumer, Priority

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(240)]


@pytest_asyncio.fixture(loop_scope="session")
async def stage(running: RunningBroker) -> AsyncIterator[Scene]:
    """A scene with a broker that can be killed, and that runs again afterwards."""
    if not running.durable:
        pytest.skip("nothing is kept in memory")
    async with scene(running) as made:
        yield made


async def test_what_was_confirmed_survives_the_broker(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    topic = await stage.topic(partitions=2)
    await stage.group(topic, visibility_timeout=VISIBILITY)
    consumer = await stage.consumer(queue)
    await stage.send(queue, "dead", "held")
    dead, _held = await pull(consumer, 2)
    await dead.dead_letter("killed it")
    await stage.send(queue, "high", priority=Priority.HIGH)
    await stage.send(queue, "delayed", delay=2)
    await stage.publish(topic, "event 1", "event 2", subtopic="a.b", partition=1)
    await stage.running.kill()
    await stage.running.restart()
    survivors = await _settled(consumer, {"held", "high", "delayed"})
    assert survivors == {"held", "high", "delayed"}
    [letter] = await stage.broker.peek(queue, limit=5, dead=True)
    assert (letter.message.body, letter.reason) == (b"dead", "killed it")
    assert await _settled(await stage.member(topic, "g"), {"event 1", "event 2"}) == {"event 1", "event 2"}


async def test_confirmations_given_while_it_dies_hold(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY, max_length=1_000_000)
    confirmed: set[str] = set()
    over = asyncio.Event()

    async def produce(number: int) -> None:
        count = 0
        while not over.is_set():
            text = f"{number}-{count}"
            count += 1
            try:
                await stage.send(queue, text)
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                confirmed.add(text)

    async def enough(more_than: int) -> None:
        async def there() -> bool:
            return len(confirmed) > more_than

        await eventually(there, RECOVERY)

    async with asyncio.TaskGroup() as tasks:
        for number in range(8):
            tasks.create_task(produce(number))
        await enough(100)
        await stage.running.kill()
        await stage.running.restart()
        await enough(len(confirmed) + 100)
        over.set()
    assert await _settled(await stage.consumer(queue), confirmed) >= confirmed


async def test_everything_is_unavailable_while_it_is_down_and_works_again(stage: Scene) -> None:
    queue, topic = await stage.queue(visibility_timeout=VISIBILITY), await stage.topic()
    consumer, member = await stage.consumer(queue), await stage.listener(topic)
    await stage.send(queue, "held")
    [held] = await pull(consumer, 1)
    waiting = asyncio.create_task(_seen(consumer, "afterwards"))
    await stage.running.kill()
    broker = stage.broker
    async with asyncio.timeout(RECOVERY):
        refusals = await asyncio.gather(
            broker.enqueue(queue, message()),
            broker.enqueue(queue, message(), delay=5),
            broker.publish(topic, message()),
            broker.queue_stats(queue),
            broker.topic_stats(topic),
            broker.peek(queue, limit=1),
            member.pull(1, wait=1),
            held.ack(),
            return_exceptions=True,
        )
    assert [type(each) for each in refusals] == [Unavailable] * len(refusals)
    await stage.running.restart()
    await retried(lambda: stage.send(queue, "afterwards"))
    await retried(lambda: stage.publish(topic, "event"))
    async with asyncio.timeout(RECOVERY):
        assert await _settled(member, {"event"}) >= {"event"}
        await waiting


async def _seen(consumer: Consumer, text: str) -> None:
    """Pull, as workers do: whatever happens to the broker, until that has come."""
    while True:
        try:
            for delivery in await consumer.pull(5, wait=600):
                await delivery.ack()
                if bodies([delivery]) == [text]:
                    return
        except Unavailable:
            await asyncio.sleep(0.1)


async def _settled(consumer: Consumer, expected: set[str]) -> set[str]:
    """What comes, acknowledged, until all that is expected has."""
    got: set[str] = set()
    async with asyncio.timeout(RECOVERY):
        while not expected <= got:
            try:
                for delivery in await consumer.pull(100, wait=2):
                    got |= set(bodies([delivery]))
                    await delivery.ack()
            except Unavailable:
                await asyncio.sleep(0.1)
    return got
