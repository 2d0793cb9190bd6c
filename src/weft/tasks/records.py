"""How tasks' records and events are written down, and for how long they are kept."""

from __future__ import annotations

from dataclasses import MISSING, fields
from typing import Annotated, Any

from pydantic import ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError, with_config
from pydantic_core import to_json
from typing_extensions import TypedDict

from weft.errors import InvalidRequest
from weft.model.task import Progress, Task, TaskError, TaskEvent, TaskEventKind, TaskState
from weft.tasks.task_id import is_id

MAX_WAIT = 30 * 86400.0
"""Seconds that a task without a deadline may wait, be worked on and be tried again before it is forgotten."""

MAX_LABELS = 16
MAX_LABEL_LENGTH = 256
MAX_TEXT_LENGTH = 2048
MAX_PROGRESS_LENGTH = 1024

EVENT_TTL = 7 * 86400.0
"""Seconds that what a worker told is kept, from when it told it, at least; or as long as the result."""

_LONGEST_TTL = 365 * 86400.0

_Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_LENGTH)]
_Time = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Label = Annotated[str, StringConstraints(max_length=MAX_LABEL_LENGTH)]

# Versions of Weft mix in one mesh: a field that this one does not know is none of its business.
_LENIENT = ConfigDict(extra="ignore")


@with_config(_LENIENT)
class _Error(TypedDict):
    code: _Text
    detail: str


@with_config(_LENIENT)
class _Progress(TypedDict, total=False):
    fraction: float | None
    message: _Text


@with_config(_LENIENT)
class _Required(TypedDict):
    id: _Text
    state: TaskState
    submitted_at: _Time
    submitter: _Text


@with_config(_LENIENT)
class _Record(_Required, total=False):
    priority: Annotated[str, StringConstraints(pattern=r"^(high|normal|low)$")]
    not_before: _Time | None
    deadline: _Time | None
    result_ttl: Annotated[float, Field(ge=1, le=_LONGEST_TTL)]
    attempts: _Count
    started_at: _Time | None
    worker: _Text
    finished_at: _Time | None
    result: Any
    error: _Error | None
    progress: _Progress | None
    webhook: _Text
    context: _Text
    labels: Annotated[dict[_Label, _Label], Field(max_length=MAX_LABELS)]
    forgiven: _Count
    message: _Text
    fingerprint: _Text
    enqueued: bool
    announced: bool


@with_config(_LENIENT)
class _Event(TypedDict):
    attempt: _Count
    number: _Count
    kind: TaskEventKind
    at: _Time
    data: Any


_RECORD: TypeAdapter[_Record] = TypeAdapter(_Record)
_EVENT: TypeAdapter[_Event] = TypeAdapter(_Event)

_DEFAULTS = tuple(
    (each.name, each.default_factory() if each.default_factory is not MISSING else each.default)
    for each in fields(Task)
)


class TaskCodec:
    """Tasks as JSON, what is at its default left out."""

    def encode(self, value: Task) -> bytes:
        """Return the JSON of `value`."""
        return to_json(record_fields(value), inf_nan_mode="null")

    def decode(self, data: bytes) -> Task:
        """Return the task in `data`; raise ValueError if it holds none. Unknown fields are ignored."""
        return parse_task(data)


class TaskEventCodec:
    """What workers tell, as JSON."""

    def encode(self, value: TaskEvent) -> bytes:
        """Return the JSON of `value`."""
        return to_json(value, inf_nan_mode="null")

    def decode(self, data: bytes) -> TaskEvent:
        """Return the event in `data`; raise ValueError if it holds none. Unknown fields are ignored."""
        try:
            return TaskEvent(**_EVENT.validate_json(data))
        except ValidationError as error:
            raise ValueError("not an event of a task") from error


def record_fields(task: Task) -> dict[str, Any]:
    """What is written down of a task: all that is not at its default."""
    written = {
        name: value
        for name, default in _DEFAULTS
        if (value := getattr(task, name)) is not default and value != default
    }
    written["state"] = task.state.value  # an enumeration costs the encoder more than all the rest
    return written


def parse_task(data: bytes | str) -> Task:
    """The task that its record's JSON stands for. Raises ValueError."""
    try:
        given = _RECORD.validate_json(data)
    except ValidationError as error:
        raise ValueError("not a task's record") from error
    if not is_id(given["id"]):
        raise ValueError("the record of a task without an id")
    record: dict[str, Any] = dict(given)
    if error_fields := given.get("error"):
        record["error"] = TaskError(**error_fields)
    if (progress := given.get("progress")) is not None:
        record["progress"] = Progress(**progress)
    return Task(**record)


def lifetime(task: Task, now: float) -> float:
    """Seconds from `now` for which the record of a task, as it stands then, is kept."""
    if task.state.terminal:
        return max(1.0, task.result_ttl)
    latest = task.deadline if task.deadline is not None else now + MAX_WAIT
    latest = max(latest, task.not_before or 0.0, now)
    return min(latest - now + task.result_ttl + 1.0, _LONGEST_TTL)


def event_lifetime(task: Task) -> float:
    """Seconds for which what a worker tells of a task is kept."""
    return max(EVENT_TTL, task.result_ttl)


def event_key(task_id: str, attempt: int, number: int) -> str:
    """The key of one event."""
    return f"{task_id}.{attempt}-{number}"


def check_labels(labels: dict[str, str]) -> None:
    """Raise InvalidRequest unless a task may have these labels."""
    if len(labels) > MAX_LABELS:
        raise InvalidRequest(f"a task has at most {MAX_LABELS} labels, not {len(labels)}")
    for name, value in labels.items():
        if not name or max(len(name), len(value)) > MAX_LABEL_LENGTH:
            raise InvalidRequest(
                f"label {name[:64]!r}: names and values have at most {MAX_LABEL_LENGTH} characters"
            )
