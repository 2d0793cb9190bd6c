"""A subscriber of the chaos tests: `python -m tests.e2e.chaos_subscriber PLAN`, until it is killed.

It notes the begin and the end of each event in its hands: `begin KEY NUMBER DELIVERIES`, `end KEY NUMBER …`.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from tests.e2e.chaos_plan import Journal, Plan

from weft.errors import NotFound
from weft.events.publisher import EventPublisher
from weft.events.subscriber import ReceivedEvent, Subscriber
from weft.model.redelivery import Backoff
from weft.model.topic import DEAD_LETTERS, TopicSpec

TOPIC = "orders"
GROUP = "readers"
KEYS = 12

SPEC = TopicSpec(
    partitions=4,
    visibility_timeout=1.0,
    max_deliveries=4,
    backoff=Backoff(initial=0.05, factor=1.0, longest=0.05),
)
TOPICS = {TOPIC: SPEC, DEAD_LETTERS: TopicSpec()}


def fails(number: int) -> bool:
    """Whether the event of that number, of any key, can be processed by nobody."""
    return number % 40 == 17


def kills(key: int, number: int) -> bool:
    """Whether the event is the death of whoever gets it."""
    return key == 0 and number == 20


async def topics(name: str) -> TopicSpec:
    """How a topic is declared."""
    if name not in TOPICS:
        raise NotFound(f"there is no topic {name!r}")
    return TOPICS[name]


class Handler:
    """Processes an event, and notes it."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def __call__(self, received: ReceivedEvent) -> None:
        key, number = (int(each) for each in received.event.id.split("-"))
        which = f"{key} {number} {received.deliveries}"
        self._journal.append(f"begin {which}")
        if kills(key, number):
            os._exit(9)
        await asyncio.sleep(random.uniform(0, 0.005))
        if fails(number):
            raise RuntimeError(f"{received.event.id} cannot be processed")
        self._journal.append(f"end {which}")


async def subscribe(plan: Plan) -> None:
    """Take events, without end."""
    _, broker = await plan.opened("subscriber")
    dead_letters = EventPublisher(broker, topics, source="/subscriber")
    handler = Handler(Journal(plan.executions))
    await Subscriber(broker, TOPIC, SPEC, GROUP, handler, dead_letters=dead_letters).run()


if __name__ == "__main__":
    asyncio.run(subscribe(Plan.read(Path(sys.argv[1]))))
