"""One pull after the other, each of which may be cancelled and loses nothing."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from weft.aio.tasks import TaskOwner
from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.messaging.broker import Delivery
from weft.messaging.brokers.rabbitmq_batch import Inbox
from weft.messaging.brokers.rabbitmq_delivery import RabbitDelivery
from weft.messaging.brokers.rabbitmq_source import Source


class Puller(ABC):
    """A consumer.

    A request to RabbitMQ that is cancelled ends its channel, and with it all that was pulled. So messages are
    taken in a task of its own, which gives back what it took if its caller was cancelled.
    """

    def __init__(self, source: Source, closed: Callable[[Puller], None]) -> None:
        """`closed` is called at the end."""
        self._source = source
        self._on_close = closed
        self._closed = False
        self._unwanted = False
        self._inbox = Inbox()
        self._work = TaskOwner(f"consumer of {source.line.what}")
        self._taking: asyncio.Task[Any] | None = None

    @abstractmethod
    async def _take(self, limit: int, wait: float) -> Sequence[RabbitDelivery]:
        """What was taken: at the latest soon after `_unwanted` is set and `_inbox` disturbed."""

    @abstractmethod
    async def _end(self) -> None:
        """Close the channels."""

    async def pull(self, limit: int, *, wait: float) -> Sequence[Delivery]:
        """Up to `limit` messages, as soon as there is one."""
        if limit < 1:
            raise InvalidRequest(f"{self._source.line.what}: {limit} messages cannot be pulled")
        if self._taking is not None:
            await asyncio.wait([self._taking])
        if self._closed:
            raise Unavailable(f"{self._source.line.what}: this consumer is closed; open another one")
        self._unwanted = False
        taking: asyncio.Task[Sequence[Delivery] | MeshError]
        taking = self._taking = self._work.start(self._taken(limit, wait), name="pull")
        try:
            taken = await asyncio.shield(taking)
        except asyncio.CancelledError:
            if taking.cancelled():
                task = asyncio.current_task()
                if task is None or not task.cancelling():
                    raise Unavailable(f"{self._source.line.what}: this consumer was closed") from None
            self._unwanted = True
            self._inbox.disturb()
            raise
        self._taking = None
        if isinstance(taken, MeshError):
            raise taken
        return taken

    async def aclose(self) -> None:
        """Stop; what was not acknowledged comes again at once."""
        if self._closed:
            return
        self._closed = True
        await self._work.close()
        with suppress(MeshError), self._source.link.translated("closing a consumer"):
            async with asyncio.timeout(self._source.link.timeout):
                await self._end()
        self._on_close(self)

    async def _taken(self, limit: int, wait: float) -> Sequence[Delivery] | MeshError:
        try:
            deliveries = await self._take(limit, wait)
            if not self._unwanted:
                return deliveries
            for each in deliveries:
                await each.nack()
        except MeshError as error:
            return error
        return []
