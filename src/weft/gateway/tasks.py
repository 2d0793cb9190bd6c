"""Tasks: submitted, looked at, waited for, followed and cancelled by callers of a gateway."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from pydantic_core import to_json

from weft.errors import MeshError, NotFound
from weft.gateway.caller import Caller
from weft.gateway.gate import take, too_often
from weft.gateway.listing import MAX_LISTED, TaskQuery
from weft.gateway.parts import CurrentCaller, CurrentGateway, Gateway
from weft.gateway.preferences import wait_preferred
from weft.gateway.stream import BROKEN_OFF, event, event_stream
from weft.gateway.strict_json import JsonAnswer, StrictRoute
from weft.gateway.submission import (
    PROBLEMS,
    BatchAnswer,
    Problem,
    TaskBatch,
    TaskDocument,
    TaskList,
    TaskSubmission,
)
from weft.gateway.submitting import Submitter
from weft.model.spec import Name
from weft.model.task import Task, TaskState
from weft.sdk.disconnect import ClientGone, while_connected
from weft.tasks.documents import task_document, task_event_document
from weft.tasks.news import TaskNews

logger = logging.getLogger(__name__)

_CLIENT_CLOSED = 499  # as nginx has it: nobody reads it

_NO_TASK: dict[int | str, dict[str, Any]] = {
    404: {"model": Problem, "description": "No such task, or not the caller's"}
}

router = APIRouter(prefix="/v1/tasks", tags=["tasks"], route_class=StrictRoute, responses=PROBLEMS)


@router.post(
    "",
    status_code=202,
    response_class=JsonAnswer,
    responses={
        200: {"model": TaskDocument, "description": "`Prefer: wait=N`, and it ended within the time"},
        202: {"model": TaskDocument, "description": "It is stored; `Location` says where it is"},
        404: {"model": Problem, "description": "No such queue"},
        409: {"model": Problem, "description": "The idempotency key was used with another payload"},
    },
)
async def submit(
    request: Request,
    wanted: TaskSubmission,
    gateway: CurrentGateway,
    caller: CurrentCaller,
    idempotency_key: Annotated[str | None, Header()] = None,  # noqa: ARG001 -- for the documentation
    prefer: Annotated[str | None, Header(description="`wait=N`: answer after N s at the latest")] = None,  # noqa: ARG001
) -> Response:
    """Put a task into a queue; with `Prefer: wait=N` answer with its result, if it is there in time."""
    task = await Submitter(gateway, caller, request.headers).submit(wanted)
    headers = {"location": f"{router.prefix}/{task.id}"}
    preferred = wait_preferred(request.headers.getlist("prefer"))
    if preferred is None:
        return JsonAnswer(task_document(task), 202, headers)
    seconds = min(float(preferred), gateway.parts.spec().max_wait)
    headers["preference-applied"] = f"wait={seconds:.0f}"
    ended = await _ended(request, gateway, caller, task, seconds)
    if ended is None:
        return Response(status_code=_CLIENT_CLOSED)
    return JsonAnswer(task_document(ended), 200 if ended.state.terminal else 202, headers)


@router.post(
    "/batch",
    response_class=JsonAnswer,
    responses={200: {"model": BatchAnswer, "description": "What became of each"}},
)
async def submit_batch(
    request: Request, batch: TaskBatch, gateway: CurrentGateway, caller: CurrentCaller
) -> Response:
    """Put up to 100 tasks into queues. Each is taken or refused for itself, and counts as a request."""
    submitter = Submitter(gateway, caller, request.headers)
    items = [await _item(submitter, wanted, place) for place, wanted in enumerate(batch.tasks)]
    return JsonAnswer({"tasks": items})


@router.get(
    "", response_class=JsonAnswer, responses={200: {"model": TaskList, "description": "A page of tasks"}}
)
async def list_tasks(
    gateway: CurrentGateway,
    caller: CurrentCaller,
    queue: Annotated[Name, Query()],
    state: TaskState | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_LISTED)] = 100,
    before: Annotated[str | None, Query(max_length=64)] = None,
) -> Response:
    """The caller's tasks in a queue, those that changed latest first."""
    query = TaskQuery(queue, state, limit, before, await gateway.rights.whose(caller, queue))
    page = await gateway.parts.list_tasks(query)
    tasks = [task_document(each) for each in page.tasks if query.wants(each)]
    return JsonAnswer({"tasks": tasks, "next": page.next})


@router.get(
    "/{task_id}",
    response_class=JsonAnswer,
    responses={200: {"model": TaskDocument, "description": "How it stands"}, **_NO_TASK},
)
async def show(task_id: str, gateway: CurrentGateway, caller: CurrentCaller) -> Response:
    """How a task stands; its result, once it has ended."""
    return JsonAnswer(task_document(await _visible(gateway, caller, task_id)))


@router.post(
    "/{task_id}/cancel",
    response_class=JsonAnswer,
    responses={200: {"model": TaskDocument, "description": "How it stands now"}, **_NO_TASK},
)
@router.delete(
    "/{task_id}",
    response_class=JsonAnswer,
    responses={200: {"model": TaskDocument, "description": "How it stands now"}, **_NO_TASK},
)
async def cancel(task_id: str, gateway: CurrentGateway, caller: CurrentCaller) -> Response:
    """Cancel a task; one that runs is interrupted, one that has ended stays as it is."""
    await _visible(gateway, caller, task_id)
    return JsonAnswer(task_document(await gateway.parts.tasks.cancel(task_id)))


@router.get(
    "/{task_id}/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "content": {"text/event-stream": {}},
            "description": "`state` (a task), `progress` and `partial` (told by its worker), until it ends",
        },
        **_NO_TASK,
    },
)
async def follow(
    task_id: str,
    gateway: CurrentGateway,
    caller: CurrentCaller,
    last_event_id: Annotated[str, Header(max_length=64)] = "",
) -> Response:
    """What happens to a task, as Server-Sent Events; `Last-Event-ID` goes on after what was heard already."""
    await _visible(gateway, caller, task_id)
    events = _events(gateway, caller, task_id, last_event_id)
    # As far as where the news begin: what is wrong with the question is told before the answer has begun.
    await anext(events)
    return event_stream(
        events,
        admitted=lambda: gateway.authentication.still_good(caller),
        draining=gateway.parts.draining,
    )


async def _visible(gateway: Gateway, caller: Caller, task_id: str) -> Task:
    """The task, if the caller may see it. Else NotFound, in the same words as if it were not there."""
    try:
        task = await gateway.parts.tasks.get(task_id)
        if await gateway.rights.sees(caller, task):
            return task
    except NotFound:
        pass
    raise NotFound(f"there is no task {task_id[:100]!r}, its result is no longer kept, or it is not yours")


async def _ended(
    request: Request, gateway: Gateway, caller: Caller, task: Task, seconds: float
) -> Task | None:
    """The task once it has ended, or as it stands when waiting is over; None if the client has gone."""
    parts = gateway.parts
    try:
        with gateway.places.one(caller.submitter):
            waiting = parts.draining.unless_begun(parts.tasks.wait(task.id, seconds))
            return await while_connected(request.receive, asyncio.create_task(waiting)) or task
    except ClientGone:
        return None
    except MeshError as error:
        # The task is stored all the same, and that is what the caller must be told.
        logger.info("task %s was not waited for: %s", task.id, error)
        return task


async def _item(submitter: Submitter, wanted: TaskSubmission, place: int) -> dict[str, Any]:
    """What became of one task of a batch."""
    try:
        # The batch itself was counted as one request: that is its first task.
        quota = take(submitter.gateway, submitter.caller) if place else None
        if quota is not None and not quota.granted:
            raise too_often(quota)
        task = await submitter.submit(wanted, place)
    except MeshError as error:
        return {"status": error.status, "problem": error.problem()}
    return {"status": 202, "task": task_document(task)}


async def _events(gateway: Gateway, caller: Caller, task_id: str, after: str) -> AsyncGenerator[bytes, None]:
    """The stream, behind an empty piece that says that it has begun."""
    with gateway.places.one(caller.submitter):
        async with gateway.parts.tasks.follow(task_id, after) as news:
            yield b""
            try:
                async for each in news:
                    yield _event(each)
            except MeshError as error:
                logger.info("the events of task %s end: %s", task_id, error)
                yield BROKEN_OFF


def _event(news: TaskNews) -> bytes:
    if news.event is not None:
        return event(news.event.kind, news.cursor, to_json(task_event_document(news.event)))
    return event("state", news.cursor, to_json(task_document(news.task) if news.task else None))
