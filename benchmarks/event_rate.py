"""Events per second, published and delivered: Weft's CloudEvents beside bare messages by nats-py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import count
from statistics import median

import nats
import nats.errors
from benchmarks.messages.servers import place
from benchmarks.messages.spread import spread
from benchmarks.progress import step
from benchmarks.report import Figure, Result
from nats.js import JetStreamContext

from weft.events.publisher import EventPublisher
from weft.events.subscriber import ReceivedEvent, Subscriber
from weft.messaging.broker import ALL, BrokerAdmin, GroupSettings, TopicSettings
from weft.messaging.opening import BrokerAccess, open_broker
from weft.model.topic import TopicSpec
from weft.store.nats import NatsStore

AT_ONCE = 64
"""Publications, and then deliveries, under way."""

_SOURCE = "spiffe://weft.local/agent/bench/one"
_DATA = {"text": "Weft is an agent mesh. " * 8}
_SPEC = TopicSpec(dead_letter=None)
_LIMIT = 300.0
"""Seconds that one round may take."""

_numbers = count(1)


@dataclass(frozen=True, slots=True)
class Sample:
    """One round; both in messages a second."""

    published: float
    delivered: float


async def measure(*, quick: bool = False) -> Result:
    """Interleaved rounds in one process, each with streams of its own; medians."""
    rounds, events = (2, 5_000) if quick else (5, 20_000)
    sides: dict[str, Callable[[int], Awaitable[Sample]]]
    samples: dict[str, list[Sample]] = {"weft": [], "bare": []}
    async with place() as here:
        server = await here.nats()
        store = await NatsStore.connect([server], name="benchmark")
        client = await nats.connect(server)
        try:
            broker = await open_broker(BrokerAccess("nats"), store)
            sides = {
                "weft": lambda number: _by_weft(broker, number),
                "bare": lambda number: _bare(client.jetstream(), number),
            }
            for number in range(rounds):
                step(f"events: round {number + 1} of {rounds}")
                for name, side in sides.items():
                    async with asyncio.timeout(_LIMIT):
                        samples[name].append(await side(events))
            await broker.aclose()
        finally:
            await client.close()
            await store.close()
    published, delivered = (
        {name: median(getattr(each, what) for each in taken) for name, taken in samples.items()}
        for what in ("published", "delivered")
    )
    notes = (
        f"medians of {rounds} interleaved rounds of {events:,} events of {len(_DATA['text'])} bytes; every "
        f"publication is confirmed, every delivery handled and acknowledged, {AT_ONCE} at once, one process",
        "nats-py: publish, and fetch with acknowledgements; no CloudEvents, retries, leases, dead letters",
    )
    figures = (
        Figure("published", published["weft"], "events/s", published["bare"], "nats-py"),
        Figure("delivered", delivered["weft"], "events/s", delivered["bare"], "nats-py"),
    )
    return Result("Events", figures, notes)


async def _by_weft(broker: BrokerAdmin, events: int) -> Sample:
    topic = f"bench-{next(_numbers)}"
    await broker.declare_topic(TopicSettings(topic))
    await broker.declare_group(GroupSettings(topic, "bench", start=ALL))

    async def declared(_: str) -> TopicSpec:
        return _SPEC

    publisher = EventPublisher(broker, declared, source=_SOURCE)
    published = await _rate(events, spread(lambda _: publisher.publish(topic, _DATA), range(events), AT_ONCE))
    left = events

    async def handle(_: ReceivedEvent) -> None:
        nonlocal left
        left -= 1
        if not left:
            subscriber.drain()

    subscriber = Subscriber(
        broker, topic, _SPEC, "bench", handle, dead_letters=publisher, concurrency=AT_ONCE
    )
    delivered = await _rate(events, subscriber.run())
    await broker.remove_topic(topic)
    return Sample(published, delivered)


async def _bare(jetstream: JetStreamContext, messages: int) -> Sample:
    name = f"bare-{next(_numbers)}"
    await jetstream.add_stream(name=name, subjects=[name])
    data = repr(_DATA).encode()
    published = await _rate(
        messages, spread(lambda _: jetstream.publish(name, data), range(messages), AT_ONCE)
    )
    delivered = await _rate(messages, _fetched(jetstream, name, messages))
    await jetstream.delete_stream(name)
    return Sample(published, delivered)


async def _fetched(jetstream: JetStreamContext, name: str, messages: int) -> None:
    subscription = await jetstream.pull_subscribe(name, durable="bench", stream=name)
    left = messages
    while left:
        for message in await subscription.fetch(AT_ONCE, timeout=5):
            await message.ack()
            left -= 1


async def _rate(count: int, work: Awaitable[object]) -> float:
    began = time.perf_counter()
    await work
    return count / (time.perf_counter() - began)
