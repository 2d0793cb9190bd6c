"""Where tasks are written down: their records, what workers tell, and the signals that there is news."""

from __future__ import annotations

from dataclasses import dataclass

from weft.model.message_subjects import (
    CANCELLATION_SIGNALS,
    TASK_EVENTS_BUCKET,
    TASK_SIGNALS,
    TASKS_BUCKET,
)
from weft.model.task import Task, TaskEvent
from weft.store.bucket import Bucket, Store
from weft.store.signals import Signals
from weft.tasks.records import TaskCodec, TaskEventCodec


@dataclass(frozen=True, slots=True)
class Ledger:
    """The tasks of a mesh."""

    records: Bucket[Task]
    """By id."""
    events: Bucket[TaskEvent]
    """By `records.event_key`."""
    news: Signals
    """Of every change of a record, and every event; the key is the task's id."""
    cancellations: Signals
    """Of every cancellation; the key is the task's id."""

    @classmethod
    async def open(cls, store: Store) -> Ledger:
        """Open it. Raises Unavailable, or Denied where this identity has nothing to do with tasks."""
        return cls(
            await store.bucket(TASKS_BUCKET, TaskCodec(), direct=True),
            await store.bucket(TASK_EVENTS_BUCKET, TaskEventCodec(), direct=True),
            store.signals(TASK_SIGNALS),
            store.signals(CANCELLATION_SIGNALS),
        )
