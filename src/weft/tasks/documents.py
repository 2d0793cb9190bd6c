"""Tasks as documents for callers: JSON types, names in camelCase, times as RFC 3339 in UTC."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from weft.model.task import Task, TaskEvent, TaskState


def task_document(task: Task) -> dict[str, Any]:
    """A task, as callers see it. What there is not is left out; `result` is there if the task succeeded."""
    document: dict[str, Any] = {
        "id": task.id,
        "queue": task.queue,
        "state": str(task.state),
        "priority": task.priority,
        "submitter": task.submitter,
        "submittedAt": timestamp(task.submitted_at),
        "attempts": task.attempts,
        "resultTtl": task.result_ttl,
    }
    times = {
        "notBefore": task.not_before,
        "deadline": task.deadline,
        "startedAt": task.started_at,
        "finishedAt": task.finished_at,
    }
    document |= {name: timestamp(time) for name, time in times.items() if time is not None}
    texts = {"worker": task.worker, "webhook": task.webhook, "context": task.context, "labels": task.labels}
    document |= {name: value for name, value in texts.items() if value}
    if task.state is TaskState.SUCCEEDED:
        document["result"] = task.result
    if task.error is not None:
        document["error"] = {"code": task.error.code, "detail": task.error.detail}
    if task.progress is not None:
        document["progress"] = {"fraction": task.progress.fraction, "message": task.progress.message}
    return document


def task_event_document(event: TaskEvent) -> dict[str, Any]:
    """What a worker told, as callers see it."""
    return {
        "attempt": event.attempt,
        "number": event.number,
        "kind": str(event.kind),
        "at": timestamp(event.at),
        "data": event.data,
    }


def timestamp(seconds: float) -> str:
    """A time in seconds since 1970 as RFC 3339, in milliseconds, as in `2026-11-20T12:00:00.000Z`."""
    try:
        moment = datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        moment = datetime.max.replace(tzinfo=UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
