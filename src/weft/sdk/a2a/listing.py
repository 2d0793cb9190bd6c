"""ListTasks: a caller's latest tasks, those that changed last first."""

from __future__ import annotations

import asyncio

from a2a.types import a2a_pb2 as a2a
from a2a.utils.constants import DEFAULT_LIST_TASKS_PAGE_SIZE
from a2a.utils.errors import InvalidParamsError
from a2a.utils.task import (
    ListTasksCursor,
    apply_history_length,
    decode_list_tasks_cursor,
    encode_list_tasks_cursor,
    validate_history_length,
    validate_page_size,
)
from google.protobuf.json_format import ParseDict

from weft.errors import NotFound
from weft.sdk.a2a.book import TaskBook
from weft.sdk.a2a.story import snapshot

READ_AT_ONCE = 32
"""Tasks that are read at the same time."""


async def listed(book: TaskBook, owner: str, params: a2a.ListTasksRequest) -> a2a.ListTasksResponse:
    """A page of the owner's tasks, of those that `owned.MAX_OWNED` remembers.

    Raises InvalidParamsError, Unavailable.
    """
    size = params.page_size if params.HasField("page_size") else DEFAULT_LIST_TASKS_PAGE_SIZE
    validate_page_size(size)
    validate_history_length(params)
    after = _cursor(params.page_token)
    found = [each for each in await _tasks(book, owner) if _wanted(each, params)]
    found.sort(key=_place, reverse=True)
    rest = [each for each in found if after is None or _place(each) < after.sort_key()]
    page = rest[:size]
    return a2a.ListTasksResponse(
        tasks=[_shown(each, params) for each in page],
        next_page_token=_token(page[-1]) if len(rest) > size else "",
        page_size=len(page),
        total_size=len(found),
    )


async def _tasks(book: TaskBook, owner: str) -> list[a2a.Task]:
    slots = asyncio.Semaphore(READ_AT_ONCE)

    async def read(token: str) -> a2a.Task | None:
        async with slots:
            try:
                record = (await book.entry(f"{book.queue}.{token}", owner)).value
                return ParseDict((await snapshot(book, record)).task, a2a.Task())
            except NotFound:
                return None  # no longer kept

    found = await asyncio.gather(*map(read, await book.owned.of(owner)))
    return [each for each in found if each is not None]


def _wanted(task: a2a.Task, params: a2a.ListTasksRequest) -> bool:
    if params.context_id and task.context_id != params.context_id:
        return False
    if params.status and task.status.state != params.status:
        return False
    if not params.HasField("status_timestamp_after"):
        return True
    return task.status.timestamp.ToNanoseconds() >= params.status_timestamp_after.ToNanoseconds()


def _place(task: a2a.Task) -> tuple[bool, int, str]:
    return (True, task.status.timestamp.ToNanoseconds(), task.id)


def _token(task: a2a.Task) -> str:
    return encode_list_tasks_cursor(ListTasksCursor(task.status.timestamp.ToNanoseconds(), task.id))


def _cursor(token: str) -> ListTasksCursor | None:
    if not token:
        return None
    cursor = decode_list_tasks_cursor(token)
    if cursor is None:
        raise InvalidParamsError("the page token is none that was given out")
    return cursor


def _shown(task: a2a.Task, params: a2a.ListTasksRequest) -> a2a.Task:
    if not params.include_artifacts:
        task.ClearField("artifacts")
    return apply_history_length(task, params)
