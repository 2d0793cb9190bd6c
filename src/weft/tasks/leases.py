"""Keeping hold of the tasks that a worker runs: extends their leases, and hears of their cancellation.

One timer for all of a worker's tasks: one that is done within a third of its lease costs nothing here.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from weft.aio.backoff import backoff
from weft.errors import Conflict, MeshError, Unavailable
from weft.tasks.attempt import Attempt, stop_reason
from weft.tasks.interruption import Reason
from weft.tasks.ledger import Ledger

logger = logging.getLogger(__name__)

LONGEST_SLEEP = 5.0
"""Seconds between two looks for leases that are to be extended."""

LOOK_INTERVAL = 10.0
"""Seconds after which records of running tasks are looked at, in case that the signal of a cancellation got
lost."""


class Leases:
    """The attempts that one worker has under way."""

    def __init__(self, ledger: Ledger, queue: str, *, interval: Callable[[], float]) -> None:
        """`interval` tells after how many seconds a lease is to be extended."""
        self._ledger = ledger
        self._queue = queue
        self._interval = interval
        self._held: dict[str, Attempt] = {}

    def hold(self, attempt: Attempt) -> None:
        """Keep the lease of an attempt alive from now on."""
        attempt.extended = attempt.begun
        self._held[attempt.task.id] = attempt

    def release(self, attempt: Attempt) -> None:
        """No longer."""
        if self._held.get(attempt.task.id) is attempt:
            del self._held[attempt.task.id]

    async def keep(self) -> None:
        """Extend leases, without end."""
        clock = asyncio.get_running_loop().time
        while True:
            # Not for long, since the interval may become shorter.
            await asyncio.sleep(min(self._interval() / 4, LONGEST_SLEEP))
            now = clock()
            due = [each for each in self._held.values() if now - each.extended >= self._interval()]
            for attempt in due:
                attempt.extended = now
            if due:
                await asyncio.gather(*map(self._extend, due))

    async def listen(self) -> None:
        """Hear of cancellations, without end."""
        pauses = backoff()
        while True:
            try:
                async with self._ledger.cancellations.listen(self._queue) as listener:
                    pauses = backoff()
                    while True:
                        key = await listener.next(LOOK_INTERVAL)
                        held = self._held.get(key) if key is not None else None
                        await self._look(tuple(self._held.values()) if key is None else (held,))
            except MeshError as error:
                logger.debug("queue %r: cancellations are not heard of: %s", self._queue, error.detail)
            await asyncio.sleep(next(pauses))
            await self._look(tuple(self._held.values()))

    async def _extend(self, attempt: Attempt) -> None:
        if self._held.get(attempt.task.id) is not attempt:
            return
        try:
            await attempt.delivery.extend()
        except Conflict:
            logger.warning(
                "the lease of task %r ran out before it could be extended; another worker gets it",
                attempt.task.id,
            )
            attempt.scope.interrupt(Reason.LOST)
        except MeshError as error:
            logger.warning("the lease of task %r was not extended: %s", attempt.task.id, error.detail)

    async def _look(self, attempts: Iterable[Attempt | None]) -> None:
        for attempt in attempts:
            if attempt is None or self._held.get(attempt.task.id) is not attempt:
                continue
            try:
                entry = await self._ledger.records.get(attempt.task.id)
            except Unavailable:
                return
            if entry is None or entry.revision <= attempt.revision:
                continue  # as it was, or read at a replica that is behind
            if not attempt.is_at(entry.value):
                attempt.scope.interrupt(stop_reason(entry.value))
