"""Tasks as callers submit them, and as they are told of them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BeforeValidator, Field, StringConstraints

from weft.gateway.strict_json import Body
from weft.model.duration import parse_duration
from weft.model.spec import Name
from weft.model.task import TaskEventKind, TaskState
from weft.tasks.records import MAX_LABEL_LENGTH, MAX_LABELS
from weft.tasks.task_id import MAX_KEY_LENGTH
from weft.tasks.webhooks import MAX_URL_LENGTH

MAX_BATCH = 100
"""Tasks in one batch."""


def _seconds(value: Any) -> Any:
    if isinstance(value, str):
        return parse_duration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("must be a number of seconds, or a text with a unit: 500ms, 30s, 5m, 1h")  # noqa: TRY004
    return value


def _time(value: Any) -> Any:
    if not isinstance(value, str):
        raise ValueError("must be a time as in RFC 3339: 2026-11-21T12:00:00Z")  # noqa: TRY004 -- pydantic's
    return value


Seconds = Annotated[float, BeforeValidator(_seconds, json_schema_input_type=float | str)]
"""A number of seconds, or a text with a unit."""

Time = Annotated[AwareDatetime, BeforeValidator(_time, json_schema_input_type=str)]
"""A time as in RFC 3339."""

Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_LENGTH)]

IdempotencyKey = Annotated[str, StringConstraints(min_length=1, max_length=MAX_KEY_LENGTH)]
"""What is submitted again with the same one, by the same caller, is the same task."""


class TaskSubmission(Body):
    """A task to be put into a queue."""

    queue: Name
    payload: Any
    """What the worker gets: any JSON."""
    priority: Literal["high", "normal", "low"] = "normal"
    delay: Annotated[Seconds, Field(ge=0)] | None = None
    """Until it starts at the earliest; up to 30 days."""
    not_before: Time | None = None
    """When it starts at the earliest; in place of `delay`."""
    deadline: Time | None = None
    """When it is too late for it; by default as the queue has it."""
    idempotency_key: IdempotencyKey | None = None
    """The header Idempotency-Key does the same."""
    result_ttl: Seconds | None = None
    """How long the result is kept: up to 30 days; by default as the queue has it."""
    webhook: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_LENGTH)] | None = None
    """URL to which the task is posted once it has ended."""
    labels: Annotated[dict[Label, Label], Field(max_length=MAX_LABELS)] = {}


class TaskBatch(Body):
    """Tasks to be put into queues, each for itself."""

    tasks: Annotated[list[TaskSubmission], Field(min_length=1, max_length=MAX_BATCH)]


class TaskProblem(Body):
    """Why an attempt, or the whole task, failed."""

    code: str
    detail: str


class TaskProgress(Body):
    """How far a worker says it is."""

    fraction: float | None = None
    message: str = ""


class TaskDocument(Body):
    """How a task stands."""

    id: str
    queue: str
    state: TaskState
    submitted_at: datetime
    submitter: str
    priority: str
    not_before: datetime | None = None
    deadline: datetime | None = None
    result_ttl: float | None = None
    """Seconds."""
    attempts: int
    started_at: datetime | None = None
    worker: str = ""
    finished_at: datetime | None = None
    result: Any = None
    error: TaskProblem | None = None
    progress: TaskProgress | None = None
    webhook: str = ""
    context: str = ""
    labels: dict[str, str] = {}


class TaskEventDocument(Body):
    """Something a worker told while it worked."""

    attempt: int
    number: int
    kind: TaskEventKind
    at: datetime
    data: Any


class TaskList(Body):
    """A page of tasks, those written latest first."""

    tasks: list[TaskDocument]
    next: str | None = None
    """To be given as `before` for the next page; none: this is the last one."""


class BatchItem(Body):
    """What became of one task of a batch, in the batch's order."""

    status: int
    """202, or that of the problem."""
    task: TaskDocument | None = None
    problem: dict[str, Any] | None = None
    """As in RFC 9457."""


class BatchAnswer(Body):
    """What became of the tasks of a batch."""

    tasks: list[BatchItem]


class Problem(Body):
    """What went wrong (RFC 9457); its code is in the header x-weft-error too."""

    type: str
    title: str
    status: int
    detail: str


PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "It makes no sense",
        401: "No key or token, or a wrong one",
        403: "Not permitted",
        413: "The body is too large",
        422: "A field is wrong",
        429: "The queue is full, or the caller asks too often",
        503: "The mesh cannot be reached",
    }.items()
}
"""Answers that any endpoint may give, for the documentation."""
