"""Events of a topic that keeps their order, while subscribers and the broker are killed."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections import defaultdict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from tests.e2e.chaos_plan import Journal, Plan
from tests.e2e.chaos_stage import BROKERS, Post, Server, manned, servers
from tests.e2e.chaos_subscriber import GROUP, KEYS, SPEC, TOPIC, fails, kills, topics

from weft.aio.guard import Guard
from weft.aio.poll import until
from weft.errors import Unavailable
from weft.events.dead_letters import REASON
from weft.events.publisher import EventPublisher
from weft.events.wire import event_in
from weft.messaging.broker import ALL, BrokerAdmin, GroupSettings, TopicSettings
from weft.messaging.protection import NoProtection
from weft.model.message_broker import BrokerType
from weft.model.topic import DEAD_LETTERS

EVENTS = int(os.environ.get("WEFT_CHAOS_EVENTS", "30"))
"""Of each key."""

SEED = int(os.environ.get("WEFT_CHAOS_SEED", str(random.randrange(1_000_000))))

SUBSCRIBERS = 3
KILLINGS = max(5, EVENTS // 40)
LIMIT = 180.0 + 2 * EVENTS

Event = tuple[int, int]
"""Key and number."""


class Notes:
    """What subscribers noted."""

    def __init__(self, journal: Journal) -> None:
        self.begun: list[Event] = []
        """Each event when it was begun for the first time, in that order."""
        self.ended: set[Event] = set()
        self.begins = 0
        seen: set[Event] = set()
        for line in journal.lines():
            what, key, number, _ = line.split()
            event = int(key), int(number)
            if what == "end":
                self.ended.add(event)
                continue
            self.begins += 1
            if event not in seen:
                self.begun.append(event)
            seen.add(event)


@pytest.mark.timeout(LIMIT + 60)
@pytest.mark.parametrize("kind", BROKERS)
async def test_events_of_a_key_stay_in_order_and_none_is_lost_whoever_is_killed(
    kind: BrokerType, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    print(f"{kind}: WEFT_CHAOS_SEED={SEED}")
    async with (
        servers(kind, tmp_path) as (nats, server, access),
        Guard(grace=0.1) as guard,
        asyncio.timeout(LIMIT),
    ):
        plan = Plan(nats.url, access, tmp_path / "notes")
        plan.write(tmp_path / "plan")
        journal = Journal(plan.executions)
        store, broker = await plan.opened("test")
        await _declare(broker)
        posts = [_subscriber(number, tmp_path, guard) for number in range(SUBSCRIBERS)]
        letters: dict[Event, str] = {}
        reading = asyncio.create_task(_read_dead_letters(broker, letters))
        async with manned(posts), asyncio.TaskGroup() as group:
            group.create_task(_kill(posts, server, journal))
            for key in range(KEYS):
                group.create_task(_publish(broker, key))
            group.create_task(until(lambda: _is_over(journal, letters)))
        reading.cancel()
        notes = Notes(journal)
        _check(notes, letters)
        figures = {
            "events": KEYS * EVENTS,
            "dead": len(letters),
            "repeated": notes.begins - len(notes.begun),
            "starts": [each.starts for each in posts],
        }
        print(figures)
        for name, value in figures.items():
            record_property(name, value)
        journal.close()
        await broker.aclose()
        await store.close()


def _check(notes: Notes, letters: dict[Event, str]) -> None:
    by_key: defaultdict[int, list[int]] = defaultdict(list)
    for key, number in notes.begun:
        by_key[key].append(number)
    for key, numbers in by_key.items():
        assert all(one < next_ for one, next_ in pairwise(numbers)), (key, numbers)
    hopeless = {event for event in _all() if fails(event[1]) or kills(*event)}
    assert hopeless <= set(letters)
    for event, reason in letters.items():
        expected = "RuntimeError: " if fails(event[1]) else "too-many-deliveries: "
        assert reason.startswith((expected, "too-many-deliveries: ")), (event, reason)
    # What was in the same hands as poison each time: deliveries are all that a broker counts.

    assert len(set(letters) - hopeless) < SPEC.partitions, set(letters) - hopeless


def _all() -> set[Event]:
    return {(key, number) for key in range(KEYS) for number in range(EVENTS)}


async def _is_over(journal: Journal, letters: dict[Event, str]) -> bool:
    return not _all() - Notes(journal).ended - set(letters)


async def _declare(broker: BrokerAdmin) -> None:
    await broker.declare_topic(TopicSettings(TOPIC, SPEC.partitions))
    await broker.declare_topic(TopicSettings(DEAD_LETTERS))
    await broker.declare_group(
        GroupSettings(TOPIC, GROUP, start=ALL, visibility_timeout=SPEC.visibility_timeout)
    )
    await broker.declare_group(GroupSettings(DEAD_LETTERS, "observer", start=ALL))


async def _publish(broker: BrokerAdmin, key: int) -> None:
    """Publish the events of a key, one after another; again with the same id what was not confirmed."""
    publisher = EventPublisher(broker, topics, source="/publisher")
    for number in range(EVENTS):
        while True:
            try:
                await publisher.publish(TOPIC, number, key=str(key), id=f"{key}-{number}")
            except Unavailable:
                await asyncio.sleep(0.1)
            else:
                break


async def _kill(posts: list[Post], server: Server, journal: Journal) -> None:
    """Kill subscribers while they get on with it, and the broker now and then."""
    chance = random.Random(SEED)
    for number in range(KILLINGS):
        enough = (number + 1) * KEYS * EVENTS // (KILLINGS + 2)

        async def got_on(enough: int = enough) -> bool:
            return len(Notes(journal).begun) >= enough

        await until(got_on)
        chance.choice(posts).send(signal.SIGKILL)
        if number % 4 == 2:
            await server.kill()
            await server.start()


async def _read_dead_letters(broker: BrokerAdmin, letters: dict[Event, str]) -> None:
    """Note the dead letters and their reasons, until cancelled."""
    consumer = None
    while True:
        try:
            consumer = consumer or await broker.group_consumer(DEAD_LETTERS, "observer")
            for delivery in await consumer.pull(100, wait=5.0):
                event = await event_in(delivery.message, DEAD_LETTERS, NoProtection(), encrypted=False)
                key, number = event.id.split("-")
                letters[int(key), int(number)] = str(event.extensions[REASON])
                await delivery.ack()
        except Unavailable:
            await asyncio.sleep(0.1)


def _subscriber(number: int, directory: Path, guard: Guard) -> Post:
    def arguments(_start: int) -> list[str]:
        return [str(directory / "plan")]

    return Post("tests.e2e.chaos_subscriber", arguments, directory / f"subscriber-{number}.log", guard)
