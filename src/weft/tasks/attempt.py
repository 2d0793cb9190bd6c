"""One attempt at a task: what its handler gets, and what it tells while it works."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from weft.errors import Conflict, InvalidRequest, Unavailable
from weft.messaging.broker import Delivery
from weft.model.task import Progress, Task, TaskEvent, TaskEventKind
from weft.tasks.interruption import Interruptible, Reason
from weft.tasks.json_value import sized_json_value, written_text
from weft.tasks.ledger import Ledger
from weft.tasks.records import MAX_PROGRESS_LENGTH, event_key, event_lifetime, lifetime
from weft.tasks.transitions import advanced
from weft.tasks.wire import Submission

MAX_EVENTS = 10_000
"""What one attempt may tell: progress and partial results. Beyond it progress shows in the record only."""

MAX_PARTIAL_BYTES = 64 * 1024 * 1024
"""All partial results of one attempt, as JSON: whoever asks for the task at its end gets them at once."""

PROGRESS_INTERVAL = 1.0
"""Seconds between two writes of the progress into the record."""


@dataclass(eq=False, slots=True)
class Attempt:
    """A task in a worker's hands."""

    task: Task
    """Its record, as this worker wrote it last."""
    revision: int
    """At which the record stands, as far as the worker knows."""
    submission: Submission
    delivery: Delivery
    begun: float
    """By the event loop's clock."""
    scope: Interruptible = field(default_factory=Interruptible)
    extended: float = 0.0
    """When, by the event loop's clock, the lease was extended last."""

    def is_at(self, task: Task) -> bool:
        """Whether a record, as it stands now, is about this attempt."""
        return (
            task.state is self.task.state
            and task.attempts == self.task.attempts
            and task.message == self.task.message
            and task.worker == self.task.worker
        )


class TaskRun:
    """What a handler is given: its task, and the way to tell how it goes."""

    def __init__(
        self,
        attempt: Attempt,
        payload: bytes,
        ledger: Ledger,
        *,
        deadline: float | None,
        clock: Callable[[], float],
    ) -> None:
        self._attempt = attempt
        self._ledger = ledger
        self._clock = clock
        self._events = 0
        self._partial_bytes = 0
        self._progress_written = 0.0
        self._lock = asyncio.Lock()
        self.payload = payload
        """As it was submitted, opened if it was sealed."""
        self.deadline = deadline
        """Seconds since 1970 at which the handler will be cancelled, if it is known."""

    @property
    def task(self) -> Task:
        """The task, as it stands."""
        return self._attempt.task

    @property
    def attempt(self) -> int:
        """Which attempt this is, counted from 1."""
        return self._attempt.task.attempts

    @property
    def headers(self) -> Mapping[str, str]:
        """What the submitter sent beside the payload."""
        return self._attempt.submission.headers

    @property
    def content_type(self) -> str:
        """Of the payload: `application/json` unless it was submitted as bytes."""
        return self._attempt.submission.content_type

    async def progress(self, fraction: float | None = None, message: str = "") -> None:
        """Tell how far the work is: `fraction` from 0 to 1, `message` of 1,024 characters at most.

        Who follows the task hears it; in the record it shows, too. It may get lost while the store cannot be
        reached. Raises InvalidRequest for a fraction that is none.
        """
        if fraction is not None and not 0.0 <= fraction <= 1.0:
            raise InvalidRequest(f"the progress of a task is a fraction from 0 to 1, not {fraction}")
        progress = Progress(fraction, written_text(message, MAX_PROGRESS_LENGTH))
        async with self._lock:
            self._attempt.task = advanced(self._attempt.task, progress)
            with suppress(Unavailable):
                if self._events < MAX_EVENTS:
                    data = {"fraction": progress.fraction, "message": progress.message}
                    await self._tell(TaskEventKind.PROGRESS, data)
                await self._show()

    async def partial(self, data: Any) -> None:
        """Tell a part of the result: JSON types, 900 KiB at most. When this returns it is stored.

        Who follows the task gets the parts in order, before its end. Raises InvalidRequest, also after
        10,000 of them or 64 MiB; Unavailable while the store cannot be reached: then it may be told again.
        """
        value, size = sized_json_value(data, f"a partial result of task {self.task.id!r}")
        async with self._lock:
            if self._events >= MAX_EVENTS:
                raise InvalidRequest(
                    f"task {self.task.id!r} has told {MAX_EVENTS} partial results, as many as it may: "
                    "gather some into one"
                )
            if self._partial_bytes + size > MAX_PARTIAL_BYTES:
                raise InvalidRequest(
                    f"the partial results of task {self.task.id!r} have {MAX_PARTIAL_BYTES} bytes together "
                    "at most: put what is large elsewhere and give its address"
                )
            await self._tell(TaskEventKind.PARTIAL, value)
            self._partial_bytes += size

    async def _tell(self, kind: TaskEventKind, data: Any) -> None:
        task = self.task
        event = TaskEvent(task.attempts, self._events + 1, kind, self._clock(), data)
        key = event_key(task.id, event.attempt, event.number)
        await self._ledger.events.put(key, event, ttl=event_lifetime(task))
        self._events += 1
        await self._ledger.news.send(task.id)

    async def _show(self) -> None:
        """Have the record show the progress, now and then."""
        now = asyncio.get_running_loop().time()
        if now - self._progress_written < PROGRESS_INTERVAL:
            return
        self._progress_written = now
        attempt = self._attempt
        try:
            attempt.revision = await self._ledger.records.update(
                attempt.task.id,
                attempt.task,
                revision=attempt.revision,
                ttl=lifetime(attempt.task, self._clock()),
            )
        except Conflict:
            await self._look()

    async def _look(self) -> None:
        """Somebody else has written the record: find out whether the task is still this worker's."""
        attempt = self._attempt
        entry = await self._ledger.records.get(attempt.task.id)
        if entry is None or entry.revision <= attempt.revision:
            return  # read at a replica that is behind
        if attempt.is_at(entry.value):
            attempt.revision = entry.revision
        else:
            attempt.scope.interrupt(stop_reason(entry.value))
            await asyncio.sleep(0)  # have it happen here, and not behind the end of the handler


def stop_reason(record: Task) -> Reason:
    """Why an attempt stops whose task's record is not about it any more."""
    return Reason.CANCELLED if record.state.terminal else Reason.LOST


Runner = Callable[[TaskRun], Awaitable[Any]]
"""Does a task, and returns its result: JSON types, 900 KiB at most.

What it raises is the attempt's failure: InvalidRequest for good, Refused (busy, draining) not counted, all
else to be tried again. It is cancelled when the task is, or is too late.
"""
