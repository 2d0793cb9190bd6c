"""What a member of the mesh does of its own accord: works on tasks of queues, and takes events of topics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol, TypeVar

from weft.aio.backoff import backoff
from weft.aio.reminder import Reminder
from weft.aio.tasks import TaskOwner
from weft.errors import MeshError
from weft.events.subscriber import Subscriber
from weft.messaging.control import Subscription
from weft.messaging.middleware.metrics import measured
from weft.model.queue import QueueSpec
from weft.tasks.attempt import Runner
from weft.tasks.worker import Worker
from weft.work.event_duty import EventDuty
from weft.work.membership import Membership
from weft.work.sharing import shared

logger = logging.getLogger("weft.work")

T = TypeVar("T")

LONGEST_PAUSE = 10.0
"""Seconds between two attempts to begin, at most."""

RENEWAL_INTERVAL = 60.0
"""Seconds after which a subscription is asked for again: topics may have been declared since."""


@dataclass(frozen=True, slots=True)
class TaskDuty:
    """A queue to work on."""

    queue: str
    runner: Callable[[QueueSpec], Runner]
    """Makes, of the queue as it is declared, what does its tasks."""
    concurrency: int | None = None
    """Tasks at once; None: as many as the queue says."""


class _Duty(Protocol):
    """Something that is under way: a Worker or a Subscriber."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def drain(self) -> None: ...

    async def drained(self, timeout: float) -> None: ...


class Work:
    """The duties of one member. After `start`: to stop it `drain`, await `drained`, then `aclose`."""

    def __init__(
        self,
        tasks: Sequence[TaskDuty],
        events: Sequence[EventDuty],
        join: Callable[[], Awaitable[Membership]],
    ) -> None:
        """`join` gives the membership; it is called again and again until it does.

        Raises InvalidRequest for a topic pattern that is none.
        """
        self.tasks = tuple(tasks)
        self.events = tuple(shared(events))
        self._join = join
        self._owner = TaskOwner("work")
        self._under_way: list[_Duty] = []
        self._draining = asyncio.Event()
        self._paused = False

    def start(self) -> None:
        """Begin, in the background. What cannot begin yet is tried again; needs a running event loop."""
        if self.tasks or self.events:
            self._owner.start(self._begin(), name="begin")

    def pause(self) -> None:
        """Take nothing more until `resume`; what is under way goes on."""
        self._paused = True
        for each in self._under_way:
            each.pause()

    def resume(self) -> None:
        """Take tasks and events again."""
        self._paused = False
        for each in self._under_way:
            each.resume()

    def drain(self) -> None:
        """Take nothing more; what is under way goes on."""
        self._draining.set()
        for each in self._under_way:
            each.drain()

    async def drained(self, timeout: float) -> None:
        """Wait until nothing is under way; after `timeout` seconds hand back what still is."""
        await asyncio.gather(*(each.drained(timeout) for each in self._under_way))

    async def aclose(self) -> None:
        """Stop. What is under way is broken off and handed back."""
        await self._owner.close()

    async def _begin(self) -> None:
        membership = await self._persistently("use topics and queues", self._join)
        if membership is None:
            return
        for duty in self.tasks:
            self._owner.start(self._work_on(membership, duty), name=f"queue {duty.queue}")
        for each in self.events:
            self._owner.start(self._subscribe(membership, each), name=f"topic {each.topic}")

    async def _work_on(self, membership: Membership, duty: TaskDuty) -> None:
        async def work() -> bool:
            spec = await membership.directory.queue(duty.queue)
            worker = await Worker.open(
                membership.store,
                membership.broker,
                duty.queue,
                spec,
                duty.runner(spec),
                name=membership.name,
                concurrency=duty.concurrency,
                protection=membership.protection,
                metrics=membership.metrics.workers,
            )
            declared = self._owner.start(
                self._keep_declared(worker, membership, duty.queue), name=f"declaration of {duty.queue}"
            )
            try:
                await self._through(worker, worker.run())
            finally:
                declared.cancel()
                await worker.aclose()
            return True

        logger.info("works on queue %r", duty.queue)
        await self._persistently(f"work on queue {duty.queue!r}", work)

    async def _keep_declared(self, worker: Worker, membership: Membership, queue: str) -> None:
        """Have the worker keep to the queue's limits as they are declared by now."""
        while True:
            await asyncio.sleep(RENEWAL_INTERVAL)
            with suppress(MeshError):
                worker.declare(await membership.directory.queue(queue))

    async def _subscribe(self, membership: Membership, duty: EventDuty) -> None:
        what = f"subscribe to {duty.topic!r}"

        async def ask() -> list[Subscription]:
            return await membership.directory.subscribe(
                duty.topic, every_instance=duty.every_instance, start=duty.start
            )

        known: set[Subscription] = set()
        while not self._draining.is_set():
            for each in await self._persistently(what, ask) or ():
                if each not in known:
                    known.add(each)
                    self._owner.start(self._take(membership, duty, each), name=f"events of {each.topic}")
            if not known:
                logger.warning("no topic that %r stands for is declared yet", duty.topic)
            await self._unless_draining(RENEWAL_INTERVAL)

    async def _take(self, membership: Membership, duty: EventDuty, subscription: Subscription) -> None:
        async def take() -> bool:
            spec = await membership.directory.topic(subscription.topic)
            channel = f"topic/{subscription.topic}/{subscription.group}"
            subscriber = Subscriber(
                membership.broker,
                subscription.topic,
                spec,
                subscription.group,
                duty.handler(spec),
                dead_letters=membership.events,
                filter=duty.filter,
                concurrency=duty.concurrency,
                protection=membership.protection,
                middleware=[measured(membership.metrics.messages.of(channel))],
            )
            await self._through(subscriber, subscriber.run())
            return True

        logger.info("takes events of topic %r as %r", subscription.topic, subscription.group)
        await self._persistently(f"take events of topic {subscription.topic!r}", take)

    async def _through(self, duty: _Duty, run: Awaitable[None]) -> None:
        """Do it until it has drained."""
        self._under_way.append(duty)
        try:
            if self._paused:
                duty.pause()
            if self._draining.is_set():
                duty.drain()
            await run
        finally:
            self._under_way.remove(duty)

    async def _persistently(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T | None:
        """What `attempt` gives, tried again for as long as the mesh says no; None once draining."""
        now = asyncio.get_running_loop().time
        reminder = Reminder(now(), first=0.0)
        for pause in backoff(longest=LONGEST_PAUSE):
            if self._draining.is_set():
                return None
            try:
                return await attempt()
            except MeshError as error:
                if reminder.due(now()):
                    logger.warning("cannot %s yet, trying on: %s", what, error.detail)
            await self._unless_draining(pause)
        raise AssertionError("the pauses never end")

    async def _unless_draining(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._draining.wait()
        except TimeoutError:
            return
