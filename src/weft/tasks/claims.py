"""Whose turn it is: what a worker may do with a task whose message it got.

A message names the revision at which the task's record stood when it was submitted. In the usual case the
worker claims the task by one write, on condition that the record still stands there. Else it reads the record
and decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from weft.errors import Conflict
from weft.model.task import Task, TaskError, TaskState
from weft.store.bucket import Bucket, Entry
from weft.tasks.quarantine import Quarantine, pause
from weft.tasks.records import lifetime
from weft.tasks.transitions import claimed, failed
from weft.tasks.wire import Submission

DEADLINE_EXCEEDED = "deadline-exceeded"
TOO_MANY_DELIVERIES = "too-many-deliveries"

MISSING_PATIENCE = 3
"""So often must a message be delivered until its record is taken for gone: a replica may be behind."""

MISSING_PAUSE = 2.0
"""Seconds between these deliveries."""

CLOCK_TOLERANCE = 1.0
"""Seconds that a message may come before its task's time: brokers have clocks of their own."""

_MOST_TRIES = 10
_CONTENTION_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """Run it: the record says so."""

    task: Task
    revision: int


@dataclass(frozen=True, slots=True)
class Over:
    """It has ended: see that what belongs to that is done, and let go of the message."""

    task: Task
    just_now: bool = False
    """Whether it was this very message that ended it, by coming too late or too often."""


@dataclass(frozen=True, slots=True)
class Later:
    """Not now: have the message again in so many seconds."""

    pause: float


@dataclass(frozen=True, slots=True)
class Drop:
    """The message stands for nothing (any more)."""

    reason: str


@dataclass(frozen=True, slots=True)
class _Claim:
    task: Task


@dataclass(frozen=True, slots=True)
class _Fail:
    task: Task
    error: TaskError


Decision = Run | Over | Later | Drop


@dataclass(frozen=True, slots=True)
class Limits:
    """What a queue sets for its tasks."""

    max_deliveries: int
    visibility_timeout: float
    """Seconds."""


def decide(
    record: Task | None, submission: Submission, *, deliveries: int, limits: Limits, now: float
) -> _Claim | _Fail | Over | Later | Drop:
    """What a task's record, as it stands, allows whoever got that message."""
    if record is None:
        return Later(MISSING_PAUSE) if deliveries < MISSING_PATIENCE else Drop("its record is gone")
    if record.submitted_at != submission.task.submitted_at:
        return Drop("it is left from an earlier task with the same id")
    if record.state.terminal:
        return Over(record)
    if record.state is TaskState.RUNNING and record.message != submission.message_id:
        # Submitted twice, the task runs by its other message, which is there until the task has ended.
        return Later(limits.visibility_timeout)
    return _begun(record, limits, now)


def _begun(record: Task, limits: Limits, now: float) -> _Claim | _Fail | Later:
    """What becomes of a task that has not ended, and that nobody else has."""
    if record.failures >= limits.max_deliveries:
        return _Fail(record, _exhausted(record, limits))
    if record.deadline is not None and now >= record.deadline:
        return _Fail(record, too_late("its deadline passed before a worker could begin"))
    if record.not_before is not None and record.not_before - now > CLOCK_TOLERANCE:
        return Later(record.not_before - now)
    return _Claim(record)


def too_late(detail: str) -> TaskError:
    """Why a task fails whose deadline has passed."""
    return TaskError(DEADLINE_EXCEEDED, detail)


class Claims:
    """Claims tasks for one worker."""

    def __init__(self, records: Bucket[Task], *, worker: str, clock: Callable[[], float]) -> None:
        """`worker` is `<type>.<instance>`; `clock` tells the seconds since 1970."""
        self._records = records
        self._worker = worker
        self._clock = clock
        self._quarantine = Quarantine()

    async def claim(self, submission: Submission, *, deliveries: int, limits: Limits) -> Decision:
        """What to do with a message; if that is to run its task, this worker has claimed it: `release` it.

        Raises Unavailable and Denied.
        """
        # What is delivered for the first time stands, in all likelihood, as it was submitted.
        entry: Entry[Task] | None = Entry(submission.task.id, submission.task, submission.revision)
        guessed = deliveries <= 1
        for _ in range(_MOST_TRIES):
            if not guessed:
                entry = await self._records.get(submission.task.id)
            record = entry.value if entry else None
            wanted = decide(record, submission, deliveries=deliveries, limits=limits, now=self._clock())
            if entry is None or not isinstance(wanted, _Claim | _Fail):
                if not guessed:
                    return _public(wanted)
                guessed = False
                continue
            try:
                return await self._written(wanted, submission, entry.revision, limits)
            except Conflict:
                # Where the store is a cluster, what was read may have been old.
                if not guessed:
                    await asyncio.sleep(_CONTENTION_PAUSE)
                guessed = False
        return Later(MISSING_PAUSE)

    def release(self, task_id: str) -> None:
        """The attempt at a task that was claimed is over."""
        self._quarantine.leave(task_id)

    async def _written(
        self, wanted: _Claim | _Fail, submission: Submission, revision: int, limits: Limits
    ) -> Run | Over | Later:
        now = self._clock()
        task_id, message_id = submission.task.id, submission.message_id
        if isinstance(wanted, _Fail):
            task = failed(wanted.task, wanted.error, message_id=message_id, now=now)
            await self._records.update(task_id, task, revision=revision, ttl=lifetime(task, now))
            return Over(task, just_now=True)
        if not self._quarantine.admit(wanted.task):
            return Later(pause(limits.visibility_timeout))
        try:
            task = claimed(wanted.task, message_id=message_id, worker=self._worker, now=now)
            revision = await self._records.update(task_id, task, revision=revision, ttl=lifetime(task, now))
        except BaseException:
            self.release(task_id)
            raise
        return Run(task, revision)


def _public(wanted: _Claim | _Fail | Over | Later | Drop) -> Decision:
    assert not isinstance(wanted, _Claim | _Fail)  # noqa: S101 -- both need a record, and were written
    return wanted


def _exhausted(record: Task, limits: Limits) -> TaskError:
    detail = f"{record.failures} attempts ended without a result, {limits.max_deliveries} is the limit"
    if record.state is TaskState.RUNNING:
        detail += f"; the last one, at {record.worker}, just fell silent"
    elif record.error is not None:
        detail += f"; the last error was {record.error.code}: {record.error.detail}"
    return TaskError(TOO_MANY_DELIVERIES, detail[:4096])
