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

Place = tuple[bool, int, str]
"""Where a task stands in lists: by when it changed last, and its id."""

MAX_PAGE_BYTES = 4 * 1024 * 1024
"""A page ends before it has more, but for its first task, which may be larger by itself."""


async def listed(book: TaskBook, owner: str, params: a2a.ListTasksRequest) -> a2a.ListTasksResponse:
    """A page of the owner's tasks, of those that `owned.MAX_OWNED` remembers.

    Raises InvalidParamsError, Unavailable.
    """
    size = params.page_size if params.HasField("page_size") else DEFAULT_LIST_TASKS_PAGE_SIZE
    validate_page_size(size)
    validate_history_length(params)
    after = _cursor(params.page_token)
    found = await _places(book, owner, params)
    rest = [each for each in found if after is None or each[0] < after.sort_key()]
    page, last = await _page(book, owner, params, rest[:size])
    return a2a.ListTasksResponse(
        tasks=page,
        next_page_token=_token(last) if last is not None and last != rest[-1][0] else "",
        page_size=len(page),
        total_size=len(found),
    )


async def _places(book: TaskBook, owner: str, params: a2a.ListTasksRequest) -> list[tuple[Place, str]]:
    """Where the tasks stand that are wanted, and their tokens. Tasks may be large: none is kept for that."""

    async def place(token: str) -> tuple[Place, str] | None:
        task = await _read(book, owner, token)
        return (_place(task), token) if task is not None and _wanted(task, params) else None

    found = await asyncio.gather(*map(place, await book.owned.of(owner)))
    return sorted((each for each in found if each is not None), reverse=True)


async def _page(
    book: TaskBook, owner: str, params: a2a.ListTasksRequest, found: list[tuple[Place, str]]
) -> tuple[list[a2a.Task], Place | None]:
    """As many of those found as fit, and where the last of them stands."""
    page: list[a2a.Task] = []
    last = None
    room = MAX_PAGE_BYTES
    for place, token in found:
        task = await _read(book, owner, token)
        if task is not None:
            shown = _shown(task, params)
            room -= shown.ByteSize()
            if page and room < 0:
                break
            page.append(shown)
        last = place
    return page, last


async def _read(book: TaskBook, owner: str, token: str) -> a2a.Task | None:
    async with book.reading:
        try:
            record = (await book.entry(f"{book.queue}.{token}", owner)).value
            return ParseDict((await snapshot(book, record)).task, a2a.Task())
        except NotFound:
            return None  # no longer kept


def _wanted(task: a2a.Task, params: a2a.ListTasksRequest) -> bool:
    if params.context_id and task.context_id != params.context_id:
        return False
    if params.status and task.status.state != params.status:
        return False
    if not params.HasField("status_timestamp_after"):
        return True
    return task.status.timestamp.ToNanoseconds() >= params.status_timestamp_after.ToNanoseconds()


def _place(task: a2a.Task) -> Place:
    return (True, task.status.timestamp.ToNanoseconds(), task.id)


def _token(place: Place) -> str:
    _, time, task_id = place
    return encode_list_tasks_cursor(ListTasksCursor(time, task_id))


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
