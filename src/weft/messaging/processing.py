"""Processing the messages of a consumer, several at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import suppress

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.errors import InvalidRequest, MeshError, Unavailable
from weft.messaging.broker import Consumer, Delivery

logger = logging.getLogger(__name__)

Handle = Callable[[Delivery], Awaitable[None]]
"""Does what is to be done about one message. It, or a middleware around it, acknowledges."""

Middleware = Callable[[Handle], Handle]
"""Puts something around a handle. Those there are: `weft.messaging.middleware`."""

_PULL_WAIT = 30.0
"""Seconds after which a pull that brought nothing is repeated."""

_HAND_BACK_LIMIT = 5.0
"""Seconds for telling the broker to give messages to somebody else. If it takes longer they come again after
their visibility timeout."""


def stacked(handle: Handle, *middleware: Middleware) -> Handle:
    """`handle` with `middleware` around it: the first is the outermost."""
    for each in reversed(middleware):
        handle = each(handle)
    return handle


async def hand_back(delivery: Delivery, delay: float = 0.0) -> None:
    """Have a message delivered again in `delay` seconds; if the broker does not take that, whenever its
    visibility timeout is over."""
    try:
        await delivery.nack(delay)
    except MeshError as error:
        logger.info("message %s comes again when its time is over: %s", delivery.message.id, error)


class Processor:
    """Pulls what it has free slots for, never more, and handles each message in a task of its own.

    What a handle raises is logged; its message comes again after its visibility timeout (with the middleware
    `retrying`, as that says). `run` is called once, and whoever does so closes the consumer afterwards.
    """

    def __init__(self, consumer: Consumer, handle: Handle, *, concurrency: int, name: str) -> None:
        """`concurrency` is how many messages are handled at once; `name` says in logs what this processes.

        Raises InvalidRequest for a concurrency below 1.
        """
        if concurrency < 1:
            raise InvalidRequest(f"{name}: {concurrency} messages at once cannot be processed: 1 or more")
        self._consumer = consumer
        self._handle = handle
        self._concurrency = concurrency
        self._name = name
        self._tasks: dict[asyncio.Task[None], Delivery] = {}
        self._freed = asyncio.Event()
        self._draining = asyncio.Event()
        self._wanted = asyncio.Event()
        self._wanted.set()
        self._pulling: asyncio.Task[Sequence[Delivery]] | None = None
        self._called_off = False

    @property
    def in_flight(self) -> int:
        """How many messages are being handled."""
        return len(self._tasks)

    async def run(self) -> None:
        """Process messages until drained; cancelled, hand back what is under way.

        While the broker is Unavailable, it is asked again and again. Other errors that a pull raises, such as
        NotFound when the queue was removed, are raised here, when what is under way has ended.
        """
        try:
            try:
                await self._pull_until_drained()
            except MeshError:
                await self._idle()
                raise
            await self._idle()
        finally:
            await self._hand_back_all()

    def pause(self) -> None:
        """Pull no more until `resume`; what is under way goes on."""
        self._wanted.clear()
        self._call_off()

    def resume(self) -> None:
        """Pull again after a `pause`; else it does nothing."""
        self._wanted.set()

    def drain(self) -> None:
        """Pull no more. `run` returns as soon as nothing is under way."""
        self._draining.set()
        self._freed.set()
        self._wanted.set()
        self._call_off()

    async def drained(self, timeout: float) -> None:
        """Drain; wait up to `timeout` seconds for what is under way; then cancel that and hand it back."""
        self.drain()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout)
        await self._hand_back_all()

    async def _pull_until_drained(self) -> None:
        reminder = Reminder(0.0, first=0.0)
        pauses: Iterator[float] | None = None
        loop = asyncio.get_running_loop()
        while not self._draining.is_set():
            if not self._wanted.is_set():
                await self._wanted.wait()
                continue
            free = self._concurrency - len(self._tasks)
            if not free:
                self._freed.clear()
                await self._freed.wait()
                continue
            try:
                deliveries = await self._pull(free)
            except Unavailable as error:
                pauses = pauses or backoff(first=0.2, longest=5.0)
                if reminder.due(loop.time()):
                    logger.warning("%s: waiting for the broker: %s", self._name, error)
                await self._pause(next(pauses))
                continue
            if pauses is not None:
                logger.info("%s: the broker is back", self._name)
                pauses, reminder = None, Reminder(0.0, first=0.0)
            await self._begin(deliveries)

    async def _pull(self, limit: int) -> Sequence[Delivery]:
        """Up to so many messages; none if drained or paused meanwhile."""
        # In a task, so that draining and pausing can end it without ending this.
        self._called_off = False
        pulling = self._pulling = asyncio.create_task(self._consumer.pull(limit, wait=_PULL_WAIT))
        try:
            return await pulling
        except asyncio.CancelledError:
            if pulling.cancelled() and self._called_off and not _cancelled():
                return ()
            if pulling.done() and not pulling.cancelled() and pulling.exception() is None:
                await _hand_back_each(pulling.result())
            raise
        finally:
            self._pulling = None

    async def _begin(self, deliveries: Sequence[Delivery]) -> None:
        if self._draining.is_set():
            await _hand_back_each(deliveries)
            return
        for delivery in deliveries:
            task = asyncio.create_task(self._process(delivery))
            self._tasks[task] = delivery
            task.add_done_callback(self._note_end)

    async def _process(self, delivery: Delivery) -> None:
        await self._handle(delivery)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        delivery = self._tasks.pop(task)
        self._freed.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("%s: message %s failed", self._name, delivery.message.id, exc_info=error)

    async def _idle(self) -> None:
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def _hand_back_all(self) -> None:
        left = dict(self._tasks)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        # Also those that were cancelled before they began, of which no middleware knows.
        await _hand_back_each([delivery for task, delivery in left.items() if task.cancelled()])

    def _call_off(self) -> None:
        if self._pulling is not None:
            self._called_off = True
            self._pulling.cancel()

    async def _pause(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._draining.wait()


def _cancelled() -> bool:
    """Whether the current task is asked to end."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


async def _hand_back_each(deliveries: Sequence[Delivery]) -> None:
    if not deliveries:
        return
    with suppress(TimeoutError):
        async with asyncio.timeout(_HAND_BACK_LIMIT):
            await asyncio.gather(*map(hand_back, deliveries))
