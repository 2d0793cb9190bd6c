"""Tasks over HTTP, for operators; callers from outside go through a gateway."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query
from fastapi.responses import StreamingResponse
from pydantic import Field

from weft.controlplane.api.access import requires
from weft.controlplane.api.authentication import CurrentCaller
from weft.controlplane.api.body import Body
from weft.controlplane.api.context import Admitted, Audited, CurrentMessaging
from weft.controlplane.api.events import event, event_stream
from weft.model.operator import Scope
from weft.model.task import TaskState
from weft.tasks.client import TaskClient
from weft.tasks.documents import task_document, task_event_document

router = APIRouter(prefix="/v1/tasks", tags=["tasks"])

_READERS = [Depends(requires(Scope.VIEWER))]
_WRITERS = [Depends(requires(Scope.OPERATOR))]

MAX_PAGE = 1000

MAX_TOLD = 500
"""Of what a task's workers told, the last so many are in its history."""

TaskId = Annotated[str, Path(max_length=128)]


class TaskIn(Body):
    """A task to submit."""

    queue: Annotated[str, Field(max_length=63)]
    payload: Any = None
    """JSON."""
    priority: Annotated[str, Field(max_length=16)] = "normal"
    """`high`, `normal` or `low`."""
    delay: Annotated[float, Field(ge=0)] | None = None
    """Seconds before it may start."""
    deadline_in: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which it is too late for it."""
    idempotency_key: Annotated[str, Field(max_length=255)] | None = None
    """What is submitted again with the same key is the same task."""
    labels: Annotated[dict[str, str], Field(max_length=16)] = {}


class TaskPageOut(Body):
    """Some tasks of a queue, those that changed last first."""

    items: list[dict[str, Any]]
    next: str | None
    """Goes into `before` to get the rest; null where there is none."""


class TaskHistory(Body):
    """A task, and what its workers told of it until now."""

    task: dict[str, Any]
    events: list[dict[str, Any]]
    """Progress and partial results, the oldest first: the last 500."""
    left_out: int
    """How many there are before those."""


@router.post("", status_code=202, dependencies=_WRITERS)
async def submit(
    messaging: CurrentMessaging, caller: CurrentCaller, changes: Audited, body: TaskIn
) -> dict[str, Any]:
    """Put a task into a queue."""
    deadline = None if body.deadline_in is None else time.time() + body.deadline_in
    submitted = await messaging.tasks.submit(
        body.queue,
        body.payload,
        priority=body.priority,
        delay=body.delay,
        deadline=deadline,
        idempotency_key=body.idempotency_key,
        labels=body.labels,
        submitter=caller.who,
    )
    changes.note("submit task", f"task/{submitted.task.id}")
    return task_document(submitted.task)


@router.get("", dependencies=_READERS)
async def list_tasks(
    messaging: CurrentMessaging,
    queue: Annotated[str, Query(max_length=63)],
    state: TaskState | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> TaskPageOut:
    """The tasks of a queue that changed last."""
    page = await messaging.tasks.list(queue, state=state, limit=limit, before=before)
    return TaskPageOut(items=[task_document(each) for each in page.tasks], next=page.next)


@router.get("/{task_id}", dependencies=_READERS)
async def get_task(messaging: CurrentMessaging, task_id: TaskId) -> dict[str, Any]:
    """How a task stands."""
    return task_document(await messaging.tasks.get(task_id))


@router.get("/{task_id}/history", dependencies=_READERS)
async def history(messaging: CurrentMessaging, task_id: TaskId) -> TaskHistory:
    """How a task stands, and what its workers have told of it; `events` goes on from there as a stream."""
    task = await messaging.tasks.get(task_id)
    events, _ = await messaging.tasks.told(task)
    shown = events[-MAX_TOLD:]
    return TaskHistory(
        task=task_document(task),
        events=[task_event_document(each) for each in shown],
        left_out=len(events) - len(shown),
    )


@router.post("/{task_id}/cancel", dependencies=_WRITERS)
async def cancel(messaging: CurrentMessaging, changes: Audited, task_id: TaskId) -> dict[str, Any]:
    """Cancel a task: one that runs is interrupted, one that has ended stays as it is."""
    task = await messaging.tasks.cancel(task_id)
    changes.note("cancel task", f"task/{task_id}", state=task.state)
    return task_document(task)


@router.get("/{task_id}/events", dependencies=_READERS)
async def watch(
    messaging: CurrentMessaging,
    admitted: Admitted,
    task_id: TaskId,
    after: Annotated[str, Query(max_length=64)] = "",
) -> StreamingResponse:
    """What happens to a task until its end, as Server-Sent Events: `state`, `progress`, `partial`.

    Each has an `id`: given as `after`, it makes another request go on with what came next.
    """
    await messaging.tasks.get(task_id)
    return event_stream(_news(messaging.tasks, task_id, after), admitted)


async def _news(tasks: TaskClient, task_id: str, after: str) -> AsyncGenerator[bytes]:
    async with AsyncExitStack() as stack:
        news = await stack.enter_async_context(tasks.follow(task_id, after))
        async for each in news:
            if each.task is not None:
                yield event("state", json.dumps(task_document(each.task)), each.cursor)
            elif each.event is not None:
                document = task_event_document(each.event)
                yield event(each.event.kind.value, json.dumps(document), each.cursor)
