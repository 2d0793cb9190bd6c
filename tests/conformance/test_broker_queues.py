"""Queues: what every broker promises of them."""

from __future__ import annotations

import asyncio
import os
import secrets
import time

import pytest
from tests.conformance.broker_scene import (
    LIMIT,
    VISIBILITY,
    Scene,
    back_after_a_nack,
    bodies,
    eventually,
    message,
    pull,
    pull_one,
)

from weft.errors import InvalidRequest, NotFound, QueueFull, Unavailable
from weft.messaging.broker import DEAD_REASON_LENGTH, MAX_DELAY, Delivery, Priority, QueueSettings
from weft.messaging.message import Message

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_message_comes_out_as_it_went_in(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    before = time.time()
    sent = Message(
        "an/id:with=signs", os.urandom(1000) + b"\x00\xff", {"content-type": "a/b; c=d", "x-e": ""}
    )
    await stage.broker.enqueue(queue, sent, priority=Priority.HIGH)
    delivery = await pull_one(consumer)
    assert delivery.message == sent
    assert delivery.lane is Priority.HIGH or delivery.lane == 0
    assert (delivery.subtopic, delivery.sequence, delivery.deliveries) == ("", 0, 1)
    assert before - 2 <= delivery.sent_at <= time.time() + 2
    await delivery.ack()


async def test_bodies_may_be_empty_and_large(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    for body in (b"", os.urandom(900 * 1024)):
        await stage.broker.enqueue(queue, message(body))
        delivery = await pull_one(consumer)
        assert delivery.message.body == body
        await delivery.ack()


async def test_a_lane_keeps_its_order(stage: Scene) -> None:
    queue = await stage.queue()
    texts = [str(number) for number in range(50)]
    await stage.send(queue, *texts)
    consumer = await stage.consumer(queue)
    assert bodies(await pull(consumer, 20)) + bodies(await pull(consumer, 30)) == texts


async def test_higher_lanes_are_served_first(stage: Scene) -> None:
    queue = await stage.queue()
    await stage.send(queue, "low 1", "low 2", priority=Priority.LOW)
    await stage.send(queue, "normal 1", "normal 2", priority=Priority.NORMAL)
    await stage.send(queue, "high 1", "high 2", priority=Priority.HIGH)
    consumer = await stage.consumer(queue)
    first = await pull_one(consumer)
    assert bodies([first]) == ["high 1"]
    await stage.send(queue, "high 3", priority=Priority.HIGH)
    rest = [*await pull(consumer, 1), *await pull(consumer, 5)]
    expected = ["high 2", "high 3", "normal 1", "normal 2", "low 1", "low 2"]
    assert sorted(bodies(rest)) == sorted(expected)
    assert bodies(rest)[:2] == expected[:2]
    assert [each.lane for each in rest] == [0, 0, 1, 1, 2, 2]


async def test_a_pull_of_more_than_there_is_returns_as_soon_as_there_is_something(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    async with asyncio.timeout(LIMIT):
        pulling = asyncio.create_task(consumer.pull(10, wait=600))
        await asyncio.sleep(0.1)
        await stage.send(queue, "one")
        assert bodies(await pulling) == ["one"]


async def test_a_pull_of_an_empty_queue_returns_nothing_in_the_end(stage: Scene) -> None:
    consumer = await stage.consumer(await stage.queue())
    async with asyncio.timeout(LIMIT):
        assert list(await consumer.pull(5, wait=0.2)) == []


async def test_a_pull_that_does_not_wait_takes_what_is_there(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    async with asyncio.timeout(LIMIT):
        assert list(await consumer.pull(5, wait=0)) == []
        await stage.send(queue, "a")
        got: list[Delivery] = []

        async def arrived() -> bool:
            got.extend(await consumer.pull(5, wait=0))
            return bool(got)

        await eventually(arrived)
    assert bodies(got) == ["a"]


async def test_a_closed_consumer_pulls_no_more(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    await stage.send(queue, "a", "b")
    consumer = await stage.consumer(queue)
    await pull_one(consumer)
    await consumer.aclose()
    await consumer.aclose()
    with pytest.raises(Unavailable):
        await consumer.pull(1, wait=1)
    heir = await stage.consumer(queue)
    left = {"a", "b"}
    while left:
        delivery = await pull_one(heir)
        left -= set(bodies([delivery]))
        await delivery.ack()


async def test_no_consumer_takes_more_than_it_pulls(stage: Scene) -> None:
    queue = await stage.queue()
    await stage.send(queue, *"abcde")
    greedy, other = await stage.consumer(queue), await stage.consumer(queue, await stage.client())
    held = [await pull_one(greedy), await pull_one(greedy)]
    assert bodies(held) == ["a", "b"]
    assert sorted(bodies(await pull(other, 3))) == ["c", "d", "e"]


async def test_a_cancelled_pull_loses_nothing(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    consumer = await stage.consumer(queue)
    got: set[str] = set()
    sent: list[str] = []
    for round_ in range(25):
        pulling = asyncio.create_task(consumer.pull(3, wait=30))
        await asyncio.sleep(0.0005 * round_)
        sent += [each.id for each in await stage.send(queue, "x", "y")]
        if round_ % 2:
            await asyncio.sleep(0.0005 * round_)
        pulling.cancel()
        await asyncio.wait([pulling])
        if not pulling.cancelled():
            for delivery in pulling.result():
                got.add(delivery.message.id)
                await delivery.ack()
    async with asyncio.timeout(LIMIT):
        while got != set(sent):
            for delivery in await consumer.pull(10, wait=2):
                got.add(delivery.message.id)
                await delivery.ack()


async def test_what_is_acknowledged_does_not_come_again(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    consumer = await stage.consumer(queue)
    await stage.send(queue, "done")
    delivery = await pull_one(consumer)
    await delivery.ack()
    await delivery.ack()
    await delivery.nack()
    await delivery.dead_letter("too late")
    assert list(await consumer.pull(1, wait=1.5 * VISIBILITY)) == []
    stats = await stage.broker.queue_stats(queue)
    assert (stats.ready, stats.in_flight, stats.dead) == (0, 0, 0)


async def test_what_nobody_acknowledges_comes_again_after_its_visibility_timeout(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    silent, other = await stage.consumer(queue), await stage.consumer(queue)
    await stage.send(queue, "again")
    before = time.monotonic()
    first = await pull_one(silent)
    second = await pull_one(other)
    assert time.monotonic() - before > VISIBILITY * 0.9
    assert second.message == first.message
    assert (first.deliveries, second.deliveries) == (1, 2)
    await second.ack()


async def test_a_consumer_that_waits_already_gets_what_comes_again(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    silent, other = await stage.consumer(queue), await stage.consumer(queue)
    async with asyncio.timeout(LIMIT):
        pulling = [asyncio.create_task(each.pull(1, wait=600)) for each in (silent, other)]
        await stage.send(queue, "again")
        done, rest = await asyncio.wait(pulling, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1
        [delivery] = await rest.pop()
        assert delivery.deliveries == 2
        await delivery.ack()


async def test_extending_keeps_others_away(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=3 * VISIBILITY)
    consumer, other = await stage.consumer(queue), await stage.consumer(queue)
    await stage.send(queue, "mine")
    delivery = await pull_one(consumer)
    waiting = asyncio.create_task(other.pull(1, wait=4 * VISIBILITY))
    while not waiting.done():
        await delivery.extend()
        await asyncio.wait([waiting], timeout=0.3)
    assert list(await waiting) == []
    await delivery.ack()
    assert list(await other.pull(1, wait=0.2)) == []


async def test_the_message_of_a_consumer_that_is_gone_comes_again_and_is_counted(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    await stage.send(queue, "a")
    for attempt in (1, 2):
        passer_by = await stage.running.connect()
        assert (await pull_one(await passer_by.queue_consumer(queue))).deliveries == attempt
        await passer_by.aclose()
    heir = await pull_one(await stage.consumer(queue))
    assert (bodies([heir]), heir.deliveries) == (["a"], 3)


async def test_a_nack_brings_it_again_after_its_delay_and_holds_up_nobody(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    await stage.send(queue, "later", "next")
    again = await back_after_a_nack(consumer)
    await again.nack()
    third = await pull_one(consumer)
    assert (third.message, third.deliveries) == (again.message, 3)


async def test_a_delayed_message_comes_in_its_time_and_lets_others_pass(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    before = time.monotonic()
    # So far apart that a busy machine sends all of them before the first is due.
    await stage.send(queue, "in four seconds", delay=4.0)
    await stage.send(queue, "in two", delay=2.0)
    await stage.send(queue, "now")
    order = []
    for earliest in (0.0, 1.95, 3.95):
        delivery = await pull_one(consumer)
        assert time.monotonic() - before >= earliest
        assert delivery.deliveries == 1
        order += bodies([delivery])
        await delivery.ack()
    assert order == ["now", "in two", "in four seconds"]


async def test_delays_beyond_the_longest_are_refused(stage: Scene) -> None:
    queue = await stage.queue()
    for delay in (MAX_DELAY + 1, -1.0):
        with pytest.raises(InvalidRequest):
            await stage.broker.enqueue(queue, message(), delay=delay)
    await stage.broker.enqueue(queue, message(), delay=MAX_DELAY)


async def test_a_dead_letter_lies_beside_with_its_reason(stage: Scene) -> None:
    queue = await stage.queue(visibility_timeout=VISIBILITY)
    consumer = await stage.consumer(queue)
    headers = {"x-kind": "poison"}
    sent = Message("poison", b"\x00\x01", headers)
    await stage.broker.enqueue(queue, sent, priority=Priority.LOW)
    await (await pull_one(consumer)).dead_letter("it is “poison”: " + "x" * 2 * DEAD_REASON_LENGTH)
    assert list(await consumer.pull(1, wait=1.5 * VISIBILITY)) == []
    [dead] = await stage.broker.peek(queue, limit=10, dead=True)
    assert (dead.message, dead.lane) == (sent, Priority.LOW)
    assert dead.reason.startswith("it is “poison”: xxx")
    assert len(dead.reason) <= DEAD_REASON_LENGTH
    await eventually(lambda: _stands(stage, queue, dead=1, ready=0, in_flight=0))


async def test_redriven_letters_are_delivered_anew_and_only_those_asked_for(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    sent = await stage.send(queue, "a", "b", "c", priority=Priority.HIGH)
    for delivery in await pull(consumer, 3):
        await delivery.nack()
    for delivery in await pull(consumer, 3):
        assert delivery.deliveries == 2
        await delivery.dead_letter("no")
    assert await stage.broker.redrive(queue, {sent[0].id, sent[2].id, "unheard-of"}) == 2
    back = await pull(consumer, 2)
    assert sorted(bodies(back)) == ["a", "c"]
    assert [(each.deliveries, each.lane) for each in back] == [(1, 0), (1, 0)]
    assert [each.message.id for each in await stage.broker.peek(queue, limit=9, dead=True)] == [sent[1].id]


async def test_peeking_leaves_messages_where_they_are(stage: Scene) -> None:
    queue = await stage.queue()
    await stage.send(queue, "low", priority=Priority.LOW)
    await stage.send(queue, "a", "b")
    for _ in range(2):
        seen = await stage.broker.peek(queue, limit=2)
        assert [(each.message.body, each.lane) for each in seen] == [(b"a", 1), (b"b", 1)]
        assert all(abs(each.sent_at - time.time()) < LIMIT for each in seen)
    assert len(await stage.broker.peek(queue, limit=1000)) == 3
    delivery = await pull_one(await stage.consumer(queue))
    assert bodies([delivery]) == ["a"]
    assert delivery.deliveries == 1 or not stage.exact
    assert list(await stage.broker.peek(queue, limit=5, dead=True)) == []


async def test_purging_throws_away_what_waits_or_the_dead(stage: Scene) -> None:
    queue = await stage.queue()
    consumer = await stage.consumer(queue)
    await stage.send(queue, "dead", "held")
    dead, held = await pull(consumer, 2)
    await dead.dead_letter("no")
    await stage.send(queue, "waits")
    await stage.send(queue, "waits too", priority=Priority.LOW)
    await stage.send(queue, "delayed", delay=600)
    assert await stage.broker.purge(queue) == 3
    await eventually(lambda: _stands(stage, queue, ready=0, delayed=0, dead=1, in_flight=1))
    assert await stage.broker.purge(queue, dead=True) == 1
    await held.nack()
    assert bodies([await pull_one(consumer)]) == ["held"]
    await eventually(lambda: _stands(stage, queue, dead=0))


async def test_stats_tell_how_a_queue_stands(stage: Scene) -> None:
    queue = await stage.queue()
    empty = await stage.broker.queue_stats(queue)
    assert (empty.ready, empty.in_flight, empty.delayed, empty.dead) == (0, 0, 0, 0)
    assert empty.oldest_age is None
    consumer = await stage.consumer(queue)
    before = time.time()
    await stage.send(queue, *"abcd")
    await stage.send(queue, "later", delay=600)
    dead, _held = await pull(consumer, 2)
    await dead.dead_letter("no")
    await eventually(lambda: _stands(stage, queue, ready=2, in_flight=1, delayed=1, dead=1))
    await asyncio.sleep(1)
    stats = await stage.broker.queue_stats(queue)
    assert stats.oldest_age is not None
    assert 0.9 <= stats.oldest_age <= time.time() - before + 1
    assert stats.enqueued_total in {None, 5}


async def test_a_full_queue_refuses_and_takes_again(stage: Scene) -> None:
    queue = await stage.queue(max_length=3)
    await stage.send(queue, *"abc")
    refused = message("d")
    with pytest.raises(QueueFull) as failure:
        await stage.broker.enqueue(queue, refused)
    assert queue in failure.value.detail
    consumer = await stage.consumer(queue)
    [first, *_rest] = await pull(consumer, 3)
    if stage.exact:
        with pytest.raises(QueueFull):
            await stage.broker.enqueue(queue, refused)
    await first.ack()

    async def taken() -> bool:
        try:
            await stage.broker.enqueue(queue, refused)
        except QueueFull:
            return False
        return True

    await eventually(taken)
    assert bodies([await pull_one(consumer)]) == ["d"]


async def test_declaring_again_changes_limits_and_keeps_messages(stage: Scene) -> None:
    queue = await stage.queue(max_length=1)
    await stage.send(queue, "a")
    with pytest.raises(QueueFull):
        await stage.send(queue, "b")
    await stage.broker.declare_queue(QueueSettings(queue, visibility_timeout=VISIBILITY, max_length=5))
    await stage.send(queue, "b")
    consumer = await stage.consumer(queue)
    assert bodies(await pull(consumer, 2)) == ["a", "b"]
    again = await pull(consumer, 2)
    assert [each.deliveries for each in again] == [2, 2]


async def test_a_removed_queue_is_gone_with_all_it_held(stage: Scene) -> None:
    queue = await stage.queue()
    await stage.send(queue, "lost")
    await stage.send(queue, "lost too", delay=0.5)
    await stage.broker.remove_queue(queue)
    await stage.broker.remove_queue(queue)
    with pytest.raises(NotFound):
        await stage.broker.enqueue(queue, message())
    await stage.broker.declare_queue(QueueSettings(queue))
    assert list(await (await stage.consumer(queue)).pull(1, wait=1)) == []


async def test_what_was_not_declared_is_not_found(stage: Scene) -> None:
    missing = f"missing-{secrets.token_hex(4)}"
    broker = stage.broker
    with pytest.raises(NotFound):
        await broker.enqueue(missing, message())
    with pytest.raises(NotFound):
        await broker.enqueue(missing, message(), delay=5)
    with pytest.raises(NotFound):
        await (await stage.consumer(missing)).pull(1, wait=0.5)
    with pytest.raises(NotFound):
        await broker.queue_stats(missing)
    with pytest.raises(NotFound):
        await broker.peek(missing, limit=1)
    with pytest.raises(NotFound):
        await broker.peek(missing, limit=1, dead=True)
    with pytest.raises(NotFound):
        await broker.redrive(missing, {"x"})
    with pytest.raises(NotFound):
        await broker.purge(missing)


async def test_many_producers_and_consumers_lose_and_repeat_nothing(stage: Scene) -> None:
    queue = await stage.queue()
    clients = [stage.broker, await stage.client()]
    seen: list[str] = []

    async def consume(number: int) -> None:
        consumer = await stage.consumer(queue, clients[number % 2])
        while len(seen) < 200:
            for delivery in await consumer.pull(7, wait=0.2):
                seen.append(delivery.message.id)
                await delivery.ack()

    async def produce(client: int) -> list[str]:
        sent = [message() for _ in range(50)]
        await asyncio.gather(*(clients[client % 2].enqueue(queue, each) for each in sent))
        return [each.id for each in sent]

    async with asyncio.timeout(LIMIT), asyncio.TaskGroup() as tasks:
        for number in range(4):
            tasks.create_task(consume(number))
        sent = await asyncio.gather(*map(produce, range(4)))
    assert sorted(seen) == sorted(id_ for ids in sent for id_ in ids)


async def _stands(stage: Scene, queue: str, **expected: int) -> bool:
    stats = await stage.broker.queue_stats(queue)
    return all(getattr(stats, name) == value for name, value in expected.items())
