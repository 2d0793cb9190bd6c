"""What a test of a broker plays in: queues and topics of its own, and consumers that are closed behind it."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from tests.conformance.running_broker import RunningBroker

from weft.aio.poll import until
from weft.errors import Unavailable
from weft.messaging.broker import (
    BrokerAdmin,
    Consumer,
    Delivery,
    GroupSettings,
    QueueSettings,
    Start,
    TopicSettings,
)
from weft.messaging.message import Message

LIMIT = 60.0
"""Seconds in which whatever is to happen has happened."""

RECOVERY = 90.0
"""Seconds within which clients work again once a server that was killed does."""

VISIBILITY = 1.0
"""Seconds after which a message comes again, where a test waits for that."""

_numbers = itertools.count(1)


def message(body: bytes | str = b"") -> Message:
    """A message with an id of its own."""
    return Message(
        f"m{next(_numbers)}-{secrets.token_hex(4)}", body.encode() if isinstance(body, str) else body
    )


def bodies(deliveries: Collection[Delivery]) -> list[str]:
    """What they say."""
    return [each.message.body.decode() for each in deliveries]


async def pull(consumer: Consumer, count: int) -> list[Delivery]:
    """So many messages, in as many pulls as it takes."""
    got: list[Delivery] = []
    async with asyncio.timeout(LIMIT):
        while len(got) < count:
            got += await consumer.pull(count - len(got), wait=5)
    return got


async def pull_one(consumer: Consumer) -> Delivery:
    """The next message."""
    [delivery] = await pull(consumer, 1)
    return delivery


async def back_after_a_nack(consumer: Consumer) -> Delivery:
    """The first of two messages that wait, `later` and `next`: nacked for a while, and the other not."""
    delivery = await pull_one(consumer)
    before = time.monotonic()
    await delivery.nack(3.0)
    following = await pull_one(consumer)
    assert bodies([following]) == ["next"]
    await following.ack()
    again = await pull_one(consumer)
    assert time.monotonic() - before > 2.9
    assert (again.message, again.deliveries) == (delivery.message, 2)
    return again


async def eventually(condition: Callable[[], Awaitable[bool]], limit: float = LIMIT) -> None:
    """Wait until it holds, for `limit` seconds at most."""
    async with asyncio.timeout(limit):
        await until(condition)


async def retried(attempt: Callable[[], Awaitable[object]]) -> None:
    """Do something with a broker that may have been killed just now, and that works again soon."""

    async def works() -> bool:
        try:
            await attempt()
        except Unavailable:
            return False
        return True

    await eventually(works, RECOVERY)


class Scene:
    """A broker, and what a test makes in it."""

    def __init__(self, running: RunningBroker, ends: AsyncExitStack, *, exact: bool) -> None:
        """`ends` takes it all away; `exact`: what the broker may count loosely, this one counts exactly."""
        self.running = running
        self.exact = exact
        self.broker: BrokerAdmin = running.broker
        self._ends = ends

    async def queue(self, *, visibility_timeout: float = 30.0, max_length: int = 1000) -> str:
        """A queue, removed afterwards."""
        name = f"q-{secrets.token_hex(5)}"
        settings = QueueSettings(name, visibility_timeout=visibility_timeout, max_length=max_length)
        await self.broker.declare_queue(settings)
        self._ends.push_async_callback(retried, lambda: self.broker.remove_queue(name))
        return name

    async def topic(self, **settings: float) -> str:
        """A topic of those TopicSettings, removed afterwards."""
        name = f"t-{secrets.token_hex(5)}"
        await self.broker.declare_topic(replace(TopicSettings(name, max_bytes=64 * 1024**2), **settings))  # type: ignore[arg-type] # whole numbers where these are due
        self._ends.push_async_callback(retried, lambda: self.broker.remove_topic(name))
        return name

    async def group(
        self,
        topic: str,
        name: str = "g",
        *,
        pattern: str = "",
        start: Start | None = None,
        visibility_timeout: float = 30.0,
        expires: float | None = None,
    ) -> str:
        """A group; it goes with its topic."""
        await self.broker.declare_group(
            GroupSettings(topic, name, pattern, start or Start(), visibility_timeout, expires)
        )
        return name

    async def consumer(self, queue: str, broker: BrokerAdmin | None = None) -> Consumer:
        """A consumer of a queue, closed afterwards."""
        return self._kept(await (broker or self.broker).queue_consumer(queue))

    async def member(self, topic: str, group: str, broker: BrokerAdmin | None = None) -> Consumer:
        """A consumer of a group, closed afterwards."""
        return self._kept(await (broker or self.broker).group_consumer(topic, group))

    async def listener(self, topic: str, group: str = "g", **settings: str) -> Consumer:
        """A consumer of a new group."""
        await self.group(topic, group, **settings)  # type: ignore[arg-type] # texts only
        return await self.member(topic, group)

    async def client(self) -> BrokerAdmin:
        """Another client, closed afterwards."""
        client = await self.running.connect()
        self._ends.push_async_callback(client.aclose)
        return client

    async def send(self, queue: str, *texts: str, **options: float) -> Sequence[Message]:
        """Enqueue messages with these bodies, one after the other."""
        sent = [message(each) for each in texts]
        for each in sent:
            await self.broker.enqueue(queue, each, **options)  # type: ignore[arg-type] # a priority is a number
        return sent

    async def publish(self, topic: str, *texts: str, subtopic: str = "", partition: int = 0) -> list[int]:
        """Publish messages with these bodies, one after the other; their sequences."""
        return [
            await self.broker.publish(topic, message(each), subtopic=subtopic, partition=partition)
            for each in texts
        ]

    def _kept(self, consumer: Consumer) -> Consumer:
        self._ends.push_async_callback(consumer.aclose)
        return consumer


@asynccontextmanager
async def scene(running: RunningBroker, *, exact: bool = True) -> AsyncIterator[Scene]:
    """A scene that takes everything away when it is left."""
    async with AsyncExitStack() as ends:
        yield Scene(running, ends, exact=exact)
