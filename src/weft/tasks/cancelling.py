"""Cancelling tasks, whether they wait or run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from weft.errors import Conflict, Unavailable
from weft.messaging.broker import Broker
from weft.model.task import Task, TaskState
from weft.store.bucket import Entry
from weft.tasks.ledger import Ledger
from weft.tasks.news import entry_of
from weft.tasks.records import lifetime
from weft.tasks.transitions import cancelled
from weft.tasks.webhooks import announce_end

_MOST_TRIES = 20
"""How often the record is written at most when others write it at the same time."""


async def cancel_task(ledger: Ledger, broker: Broker, task_id: str, *, clock: Callable[[], float]) -> Task:
    """Cancel a task, and announce that to its webhook; one that has ended stays as it is.

    Raises NotFound, Unavailable, and Conflict if its record changes all the time.
    """
    for _ in range(_MOST_TRIES):
        entry = await entry_of(ledger, task_id)
        if entry.value.state.terminal:
            return await _told(ledger, broker, entry, clock())
        task = cancelled(entry.value, now=clock())
        try:
            revision = await ledger.records.update(
                task_id, task, revision=entry.revision, ttl=lifetime(task, clock())
            )
        except Conflict:
            await asyncio.sleep(0)
            continue
        await ledger.cancellations.send(task_id)
        await ledger.news.send(task_id)
        return await _told(ledger, broker, Entry(task_id, task, revision), clock())
    raise Conflict(f"task {task_id!r} changes all the time, and could not be cancelled; try again")


async def _told(ledger: Ledger, broker: Broker, entry: Entry[Task], now: float) -> Task:
    """Have the webhook of a cancelled task told, if it was not yet."""
    task = entry.value
    if task.state is not TaskState.CANCELLED or not task.webhook or task.announced:
        return task
    await announce_end(broker, task)
    told = replace(task, announced=True)
    with suppress(Conflict, Unavailable):  # then it is told twice
        await ledger.records.update(task.id, told, revision=entry.revision, ttl=lifetime(told, now))
    return told
