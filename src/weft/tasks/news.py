"""Following a task: its changes and what its worker tells, in order, from any process.

A signal says that there is news, and then it is read. Since signals may get lost, who waits also looks by
itself, ever less often. Records are read before events: so at the end, which a worker writes after all
events, none of them is missed.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from itertools import takewhile

from weft.errors import InvalidRequest, NotFound
from weft.model.task import Task, TaskEvent, TaskState
from weft.store.bucket import Entry
from weft.store.signals import Listener
from weft.tasks.ledger import Ledger
from weft.tasks.records import event_key

FIRST_LOOK = 0.1
"""Seconds after a signal until a second look: in a cluster, the first may have been at a replica behind."""

LONGEST_LOOK = 2.0
"""Seconds between two looks when there is no signal."""

_MOST_AT_ONCE = 64
"""Events that are read at the same time."""

_CURSOR = re.compile(r"([0-9]{1,18})\.([0-9]{1,9})\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True)
class TaskNews:
    """One piece of news of a task: either its record, or an event."""

    cursor: str
    """Following on after it begins with what comes next."""
    task: Task | None = None
    """As it stands now, after its state has changed or another attempt has begun."""
    event: TaskEvent | None = None


@dataclass(slots=True)
class _Place:
    """How far a follower has read."""

    revision: int = 0
    attempt: int = 0
    number: int = 0

    @property
    def cursor(self) -> str:
        return f"{self.revision}.{self.attempt}.{self.number}"


class _Pauses:
    """How long to wait for a signal before looking without one."""

    def __init__(self) -> None:
        self._pause = FIRST_LOOK

    async def news(self, listener: Listener) -> None:
        """Return when it is time to look."""
        signalled = await listener.next(self._pause) is not None
        self._pause = FIRST_LOOK if signalled else min(self._pause * 2, LONGEST_LOOK)


async def until_ended(ledger: Ledger, task_id: str) -> Task:
    """The task, once it is terminal. Raises NotFound and Unavailable."""
    async with ledger.news.listen(task_id) as listener:
        pauses = _Pauses()
        while True:
            task = (await entry_of(ledger, task_id)).value
            if task.state.terminal:
                return task
            await pauses.news(listener)


@asynccontextmanager
async def following(ledger: Ledger, task_id: str, after: str) -> AsyncIterator[AsyncIterator[TaskNews]]:
    """What happens to a task after that cursor (empty: from its first event on), until it has ended.

    Raises InvalidRequest for a cursor that is none, NotFound, Unavailable.
    """
    place = _place(after)
    async with ledger.news.listen(task_id) as listener:
        entry = await entry_of(ledger, task_id)
        async with aclosing(_news(ledger, entry, place, listener)) as news:
            yield news


async def entry_of(ledger: Ledger, task_id: str) -> Entry[Task]:
    """The record of a task, as it stands. Raises NotFound and Unavailable."""
    entry = await ledger.records.get(task_id)
    if entry is None:
        raise NotFound(f"there is no task {task_id!r}, or its result is no longer kept")
    return entry


async def told(ledger: Ledger, task: Task) -> tuple[list[TaskEvent], str]:
    """All that workers have told of a task whose record is this, in order, and the cursor after it.

    Raises Unavailable.
    """
    place = _Place()
    found: list[TaskEvent] = []
    for attempt in range(1, task.attempts + 1):
        events = await _told_in(ledger, task.id, attempt)
        found += events
        if events or not found:
            place.attempt, place.number = attempt, len(events)
    return found, place.cursor


async def _told_in(ledger: Ledger, task_id: str, attempt: int) -> list[TaskEvent]:
    found: list[TaskEvent] = []
    window = 2
    while True:
        keys = [event_key(task_id, attempt, len(found) + each) for each in range(1, window + 1)]
        entries = await asyncio.gather(*map(ledger.events.get, keys))
        there = list(takewhile(lambda each: each is not None, entries))
        found += [each.value for each in there if each is not None]
        if len(there) < window:
            return found
        window = min(2 * window, _MOST_AT_ONCE)


async def _news(
    ledger: Ledger, entry: Entry[Task], place: _Place, listener: Listener
) -> AsyncGenerator[TaskNews]:
    pauses = _Pauses()
    told: tuple[TaskState, int] | None = None
    while True:
        task = entry.value
        standing = (task.state, task.attempts)
        is_news = entry.revision > place.revision and standing != told
        if is_news and not task.state.terminal:
            place.revision, told = entry.revision, standing
            yield TaskNews(place.cursor, task=task)
        async with aclosing(_events(ledger, task, place)) as events:
            async for event in events:
                yield TaskNews(place.cursor, event=event)
        if task.state.terminal:
            if is_news:
                place.revision = entry.revision
                yield TaskNews(place.cursor, task=task)
            return
        await pauses.news(listener)
        entry = await entry_of(ledger, task.id)


async def _events(ledger: Ledger, task: Task, place: _Place) -> AsyncGenerator[TaskEvent]:
    """What workers have told since, up to the attempt that the record knows of."""
    while task.attempts:
        place.attempt = max(place.attempt, 1)
        found = await ledger.events.get(event_key(task.id, place.attempt, place.number + 1))
        if found is not None:
            place.number += 1
            yield found.value
        elif place.attempt < task.attempts:
            place.attempt, place.number = place.attempt + 1, 0
        else:
            return


def _place(cursor: str) -> _Place:
    if not cursor:
        return _Place()
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidRequest(f"{cursor[:64]!r} is no place in the news of a task: give back one that you got")
    return _Place(*map(int, match.groups()))
