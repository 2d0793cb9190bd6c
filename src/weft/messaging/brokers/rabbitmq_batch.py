"""Taking messages out of queues of RabbitMQ, so many and no more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiormq.abc import AbstractChannel, DeliveredMessage

_STRAGGLERS = 0.05
"""Seconds after which no more of a batch are waited for: others took them."""


class Inbox:
    """What was delivered on one channel, since it was last emptied."""

    def __init__(self) -> None:
        self.messages: list[DeliveredMessage] = []
        self._arrived = asyncio.Event()
        self.disturbed = False
        """Whether RabbitMQ ended a consumer: its queue was removed."""

    async def take(self, message: DeliveredMessage) -> None:
        """A message has arrived."""
        self.messages.append(message)
        self._arrived.set()

    def disturb(self, _: object = None) -> None:
        """Wake whoever waits, for something else."""
        self.disturbed = True
        self._arrived.set()

    async def more(self) -> None:
        """Wait until something arrives, or disturbs."""
        await self._arrived.wait()
        self._arrived.clear()

    def empty(self) -> list[DeliveredMessage]:
        """Hand out what is there."""
        messages, self.messages = self.messages, []
        self._arrived.clear()
        return messages


async def ready_in(channel: AbstractChannel, queue: str) -> int:
    """How many messages wait there. If there is no such queue, the client's error ends `channel`."""
    answer = await channel.queue_declare(queue, passive=True)
    return answer.message_count or 0


def tag_of(message: DeliveredMessage) -> int:
    """What it is acknowledged by."""
    return message.delivery_tag or 0


async def take_ready(channel: AbstractChannel, queue: str, count: int) -> Sequence[DeliveredMessage]:
    """Up to `count` (1 or more) of the messages that wait, to be acknowledged on that channel."""
    if count == 1:
        # One request, where consuming takes three.
        got = await channel.basic_get(queue)
        return [] if got.delivery_tag is None else [got]
    inbox = Inbox()
    await channel.basic_qos(prefetch_count=count)
    consuming = await channel.basic_consume(queue, inbox.take)
    try:
        async with asyncio.timeout(_STRAGGLERS) as waiting:
            while len(inbox.messages) < count:
                await inbox.more()
                waiting.reschedule(asyncio.get_running_loop().time() + _STRAGGLERS)
    except TimeoutError:
        pass
    await channel.basic_cancel(str(consuming.consumer_tag))
    # Each is brought by a task of its own, begun before this request was answered.
    await asyncio.sleep(0)
    return inbox.empty()
