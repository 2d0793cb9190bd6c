"""Tasks: what is known of one, wherever it is asked."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class TaskState(StrEnum):
    """Where a task stands."""

    QUEUED = "queued"
    """It waits: for a worker, for its time, or for its next attempt."""
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    """No more attempts are made; its message is among the queue's dead letters."""
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether this is the end: a task that got there changes no more, unless it is redriven."""
        return self in _TERMINAL


_TERMINAL = frozenset({TaskState.SUCCEEDED, TaskState.FAILED, TaskState.CANCELLED})


@dataclass(frozen=True, slots=True)
class TaskError:
    """Why an attempt, or the whole task, failed."""

    code: str
    """Of `weft.errors`, or `deadline-exceeded`, `too-many-deliveries`."""
    detail: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a worker says it is."""

    fraction: float | None = None
    """0 to 1; None if it cannot tell."""
    message: str = ""
    """At most 1,024 characters."""


@dataclass(frozen=True, slots=True)
class Task:
    """One task's record. What it is given and sends is not in it: the message has the one, events the other.

    All times are in seconds since 1970.
    """

    id: str
    """`<queue>.<26 letters and digits>`: later ones of a queue sort behind earlier ones, unless they were
    submitted with an idempotency key."""
    state: TaskState
    submitted_at: float
    submitter: str
    """A SPIFFE ID; for callers from outside `key:<name>`, `jwt:<subject>` or `anonymous`, at `<gateway>/`."""
    priority: str = "normal"
    """`high`, `normal` or `low`."""
    not_before: float | None = None
    """When it starts at the earliest: as asked for, or because of the pause after a failed attempt."""
    deadline: float | None = None
    """When it is too late for it."""
    result_ttl: float = 86400.0
    """Seconds that the record is kept once the task is terminal."""
    attempts: int = 0
    """How often a worker has begun it."""
    started_at: float | None = None
    """The latest attempt's begin."""
    worker: str = ""
    """`<type>.<instance>` of the latest attempt."""
    finished_at: float | None = None
    result: Any = None
    """JSON types; None unless it succeeded (and then, maybe, too)."""
    error: TaskError | None = None
    """Of the latest attempt that failed; if the task failed, why."""
    progress: Progress | None = None
    webhook: str = ""
    """URL to which the task's end is posted."""
    context: str = ""
    """The conversation it belongs to (`x-weft-context`)."""
    labels: dict[str, str] = field(default_factory=dict)
    """The submitter's own, at most 16."""
    forgiven: int = 0
    """How many of the attempts don't count: those that workers handed back, and all before a redrive."""
    message: str = ""
    """The id of the message by which the latest attempt runs, or the task was ended."""
    fingerprint: str = ""
    """Of the payload, if it was submitted with an idempotency key: tells a repetition from another task."""
    enqueued: bool = False
    """Whether it was submitted again, and its message is known to be in the queue since."""
    announced: bool = False
    """Whether its cancellation has been put into the queue of webhooks."""

    @property
    def queue(self) -> str:
        """The queue's name."""
        return self.id.partition(".")[0]

    @property
    def failures(self) -> int:
        """How many attempts count against the queue's `maxDeliveries`, one that runs included."""
        return self.attempts - self.forgiven


class TaskEventKind(StrEnum):
    """What a worker tells while it works."""

    PROGRESS = "progress"
    PARTIAL = "partial"


@dataclass(frozen=True, slots=True)
class TaskEvent:
    """Something a worker told while it worked."""

    attempt: int
    number: int
    """Counted from 1 within the attempt."""
    kind: TaskEventKind
    at: float
    data: Any
    """Of progress `{"fraction": ..., "message": ...}`, of a partial result what the worker gave."""
