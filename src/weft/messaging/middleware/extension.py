"""Extending the lease of a message while it is worked on."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from weft.errors import Conflict, MeshError
from weft.messaging.broker import Delivery
from weft.messaging.processing import Handle, Middleware

logger = logging.getLogger(__name__)


class LeaseLost(Conflict):
    """The message was not extended in time: somebody else has it, or will, and what was done is repeated."""

    code = "lease-lost"


def extending(interval: float) -> Middleware:
    """Extend the visibility timeout every `interval` seconds while what is inside works.

    A third of the visibility timeout bears two failures. When the broker says that it is too late, what is
    inside is cancelled, and LeaseLost raised; as long as it can't be reached, it is asked again.
    """

    def around(inner: Handle) -> Handle:
        async def handle(delivery: Delivery) -> None:
            extension = _Extension(delivery, interval)
            try:
                await inner(delivery)
            except BaseException:
                await extension.stop()
                extension.check()
                raise
            await extension.stop()
            extension.check()

        return handle

    return around


class _Extension:
    """Of one message, for the task that works on it. Most are done with before a task is worth it."""

    def __init__(self, delivery: Delivery, interval: float) -> None:
        self._delivery = delivery
        self._interval = interval
        self._working = _this_task()
        self._cancelling = self._working.cancelling()
        self._lost: Conflict | None = None
        self._over = False
        self._repeating: asyncio.Task[None] | None = None
        self._timer = asyncio.get_running_loop().call_later(interval, self._start)

    async def stop(self) -> None:
        """Extend no more."""
        self._over = True
        self._timer.cancel()
        if self._repeating is not None:
            self._repeating.cancel()
            await asyncio.wait([self._repeating])

    def check(self) -> None:
        """Raise LeaseLost if that is why the work was cancelled, or should have been."""
        # A wish from elsewhere that this task end comes first.
        if self._lost is not None and self._working.uncancel() <= self._cancelling:
            raise LeaseLost(
                f"message {self._delivery.message.id} was given up: {self._lost.detail}"
            ) from self._lost

    def _start(self) -> None:
        self._repeating = asyncio.create_task(self._repeat())

    async def _repeat(self) -> None:
        while not self._over:
            try:
                await self._delivery.extend()
            except Conflict as error:
                if not self._over:
                    self._lost = error
                    self._working.cancel()
                return
            except MeshError as error:
                logger.info("message %s was not extended yet: %s", self._delivery.message.id, error)
            await asyncio.sleep(self._interval)


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("messages are processed in a task")
    return task
