"""Writing down what became of an attempt, and letting go of its message: in that order.

Whatever is done here may be done again by whoever gets the message next, should this process die midway.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from weft.aio.backoff import backoff
from weft.errors import Conflict, Denied, NotFound, QueueFull, Unavailable
from weft.messaging.broker import Broker, Delivery
from weft.model.task import Task, TaskState
from weft.tasks.attempt import Attempt
from weft.tasks.ledger import Ledger
from weft.tasks.records import lifetime
from weft.tasks.webhooks import announce_end

logger = logging.getLogger(__name__)

_TELLING = ("state", "attempts", "forgiven", "message", "worker", "finished_at", "not_before")

_MOST_TRIES = 20
_CONTENTION_PAUSE = 0.02

FULL_PAUSE = 10.0
"""Seconds until a task's end is announced again that the queue of webhooks had no room for."""


@dataclass(frozen=True, slots=True)
class Settled:
    """What stands in a task's record after an attempt."""

    task: Task | None
    """None if the record is gone."""
    ours: bool
    """Whether this worker wrote it."""


class Endings:
    """Brings attempts to their ends, for one worker."""

    def __init__(
        self, ledger: Ledger, broker: Broker, *, patience: float, clock: Callable[[], float]
    ) -> None:
        """`patience` is for how many seconds a store that is away is waited for."""
        self._ledger = ledger
        self._broker = broker
        self._patience = patience
        self._clock = clock

    async def settle(self, attempt: Attempt, after: Task) -> Settled:
        """Write what follows the attempt into the record, unless the task is somebody else's by now.

        While the store is away it is tried again. Raises Unavailable when patience is over, and Denied.
        """
        give_up = asyncio.get_running_loop().time() + self._patience
        for pause in backoff(longest=2.0):
            try:
                return await self._written(attempt, after)
            except Unavailable as error:
                if asyncio.get_running_loop().time() + pause > give_up:
                    raise
                logger.warning("the end of an attempt is not recorded yet, trying on: %s", error.detail)
            await asyncio.sleep(pause)
        raise AssertionError("the pauses have no end")

    async def let_go(self, delivery: Delivery, task: Task) -> None:
        """Do what belongs to the end of a task, and then let go of its message.

        Raises Unavailable: then the message comes again.
        """
        if task.webhook and not task.announced:
            try:
                await announce_end(self._broker, task, delivery.message.headers)
            except QueueFull:
                logger.warning("the end of task %r waits: the queue of webhooks is full", task.id)
                await delivery.nack(FULL_PAUSE)
                return
            except (NotFound, Denied) as error:
                logger.error("the end of task %r is not announced: %s", task.id, error.detail)  # noqa: TRY400
        if task.state is TaskState.FAILED and task.message == delivery.message.id:
            why = task.error
            await delivery.dead_letter(f"{why.code}: {why.detail}" if why else "it failed")
        else:
            await delivery.ack()

    async def _written(self, attempt: Attempt, after: Task) -> Settled:
        records = self._ledger.records
        for _ in range(_MOST_TRIES):
            try:
                ttl = lifetime(after, self._clock())
                await records.update(after.id, after, revision=attempt.revision, ttl=ttl)
            except Conflict:
                entry = await records.get(after.id)
                if entry is None:
                    return Settled(None, ours=False)
                if entry.revision >= attempt.revision and not attempt.is_at(entry.value):
                    return Settled(entry.value, ours=_is_same(entry.value, after))
                # A replica that is behind; or a write of this worker's own, whose answer got lost.
                attempt.revision = max(entry.revision, attempt.revision)
                await asyncio.sleep(_CONTENTION_PAUSE)
            else:
                await self._ledger.news.send(after.id)
                return Settled(after, ours=True)
        raise Unavailable(f"the record of task {after.id!r} stands, and cannot be written; trying on")


def _is_same(task: Task, after: Task) -> bool:
    """Whether a record is the very one that was to be written, by a write whose answer got lost."""
    return all(getattr(task, name) == getattr(after, name) for name in _TELLING)
