"""Throwing away the tasks that wait in a queue: for operators."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from weft.errors import Conflict, NotFound
from weft.messaging.broker import BrokerAdmin
from weft.model.task import TaskState
from weft.store.bucket import Store
from weft.tasks.cancelling import cancel_task
from weft.tasks.ledger import Ledger

_PAGE = 1000
_AT_ONCE = 64

_WAITING = frozenset({TaskState.QUEUED})
_NOT_ENDED = frozenset({TaskState.QUEUED, TaskState.RUNNING})


@dataclass(frozen=True, slots=True)
class Purge:
    """Empties queues. Open it with `open`."""

    ledger: Ledger
    broker: BrokerAdmin
    clock: Callable[[], float] = time.time
    """Tells the seconds since 1970."""

    @classmethod
    async def open(cls, store: Store, broker: BrokerAdmin) -> Purge:
        """Over `store` and `broker`, which stay the caller's to close. Raises Unavailable."""
        return cls(await Ledger.open(store), broker)

    async def purge(self, queue: str) -> int:
        """Throw away what waits in a queue, and cancel the tasks that it was; return how many messages.

        What runs goes on, and what is submitted meanwhile stays. Messages are gone at once; the records, each
        of which is written and its webhook told, take a second for some thousands: a purge that dies midway
        is to be repeated. Raises NotFound for a queue that is not declared; Unavailable.
        """
        begun = self.clock()
        count = await self.broker.purge(queue)
        await self._cancel_all(queue, _WAITING, begun)
        return count

    async def give_up(self, queue: str) -> None:
        """Cancel all tasks of a queue that was just removed, which nobody else ends. Raises Unavailable."""
        await self._cancel_all(queue, _NOT_ENDED, self.clock())

    async def _cancel_all(self, queue: str, states: frozenset[TaskState], begun: float) -> None:
        """Cancel the tasks that stand so, and were submitted before then."""
        place: int | None = None
        while entries := await self.ledger.records.recent(_PAGE, queue, before=place):
            place = entries[-1].revision
            meant = [
                each.key for each in entries if each.value.state in states and each.value.submitted_at < begun
            ]
            for first in range(0, len(meant), _AT_ONCE):
                await asyncio.gather(*map(self._cancel, meant[first : first + _AT_ONCE]))

    async def _cancel(self, task_id: str) -> None:
        with suppress(NotFound, Conflict):
            await cancel_task(self.ledger, self.broker, task_id, clock=self.clock)
