"""Trying failed tasks once more: for operators."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from weft.errors import Conflict, InvalidRequest
from weft.messaging.broker import BrokerAdmin, StoredMessage
from weft.model.task import TaskState
from weft.store.bucket import Store
from weft.tasks.ledger import Ledger
from weft.tasks.records import lifetime
from weft.tasks.transitions import redriven
from weft.tasks.wire import Submission, submission_in, task_of

_PAGE = 1000
"""Dead letters looked at in one go."""

_MOST_TRIES = 10
_CONTENTION_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Redrive:
    """Puts dead letters of tasks back into their queues, with all their attempts. Open it with `open`."""

    ledger: Ledger
    broker: BrokerAdmin
    clock: Callable[[], float] = time.time
    """Tells the seconds since 1970."""

    @classmethod
    async def open(cls, store: Store, broker: BrokerAdmin) -> Redrive:
        """Over `store` and `broker`, which stay the caller's to close. Raises Unavailable."""
        return cls(await Ledger.open(store), broker)

    async def redrive(self, queue: str, ids: Collection[str] | None = None) -> int:
        """Have these tasks tried again, or all that failed; return how many.

        `ids` are of tasks, or of messages. With `ids` also messages that are no tasks are put back; they will
        be dead letters again. What dies midway is done by doing it again.

        Raises NotFound for a queue that is not declared; Unavailable.
        """
        done = 0
        seen: set[str] = set()
        while True:
            dead = await self.broker.peek(queue, limit=_PAGE, dead=True)
            new = [each for each in dead if each.message.id not in seen]
            if not new:
                return done
            seen.update(each.message.id for each in new)
            done += await self._put_back(queue, [each for each in new if _is_meant(each, ids)], ids)

    async def _put_back(self, queue: str, dead: Sequence[StoredMessage], ids: Collection[str] | None) -> int:
        """Let the records say that they wait, and only then put the messages back: who gets them looks."""
        ready = [each.message.id for each in dead if await self._is_ready(queue, each, asked=ids is not None)]
        return await self.broker.redrive(queue, ready) if ready else 0

    async def _is_ready(self, queue: str, dead: StoredMessage, *, asked: bool) -> bool:
        """Whether the message may be put back."""
        try:
            submission = submission_in(dead.message, queue)
        except InvalidRequest:
            return asked
        for _ in range(_MOST_TRIES):
            try:
                await self._reset(submission)
            except Conflict:
                await asyncio.sleep(_CONTENTION_PAUSE)
            else:
                return True
        return False

    async def _reset(self, submission: Submission) -> None:
        """Have the task's record say that it waits. Raises Conflict if it is written meanwhile."""
        records = self.ledger.records
        task_id = submission.task.id
        entry = await records.get(task_id)
        now = self.clock()
        if entry is None:
            # It has expired since the task failed. What is in the message is as it was submitted.
            task = redriven(submission.task, now=now)
            await records.create(task_id, task, ttl=lifetime(task, now))
        elif entry.value.state is TaskState.FAILED:
            task = redriven(entry.value, now=now)
            await records.update(task_id, task, revision=entry.revision, ttl=lifetime(task, now))
            await self.ledger.news.send(task_id)


def _is_meant(dead: StoredMessage, ids: Collection[str] | None) -> bool:
    return ids is None or dead.message.id in ids or task_of(dead.message.id) in ids
