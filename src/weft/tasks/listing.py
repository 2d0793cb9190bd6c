"""Pages of a queue's tasks."""

from __future__ import annotations

from dataclasses import dataclass

from weft.errors import InvalidRequest
from weft.model.task import Task, TaskState
from weft.tasks.ledger import Ledger

MAX_LIMIT = 1000
"""Tasks on one page."""

MAX_LOOKED_AT = 10_000
"""Records that one page may cost; if there are more, the page ends early, and its `next` goes on."""

_MAX_REVISION_DIGITS = 18


@dataclass(frozen=True, slots=True)
class TaskPage:
    """Some tasks, those written latest first."""

    tasks: tuple[Task, ...]
    next: str | None
    """Where the next page begins; None if this is the last one."""


async def listed(
    ledger: Ledger, queue: str, *, state: TaskState | None, limit: int, before: str | None
) -> TaskPage:
    """Up to `limit` tasks of that state, if one is given. Raises InvalidRequest, Unavailable, Denied."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidRequest(f"ask for 1 to {MAX_LIMIT} tasks, not {limit}")
    place = _revision(before)
    tasks: list[Task] = []
    looked_at = 0
    while looked_at < MAX_LOOKED_AT:
        step = limit if state is None else MAX_LIMIT
        entries = await ledger.records.recent(step, queue, before=place)
        for entry in entries:
            looked_at += 1
            place = entry.revision
            if state is None or entry.value.state is state:
                tasks.append(entry.value)
            if len(tasks) == limit:
                return TaskPage(tuple(tasks), str(place))
        if len(entries) < step:
            return TaskPage(tuple(tasks), None)
    return TaskPage(tuple(tasks), str(place))


def _revision(before: str | None) -> int | None:
    if before is None:
        return None
    if not (before.isascii() and before.isdecimal() and len(before) <= _MAX_REVISION_DIGITS):
        raise InvalidRequest(f"{before[:64]!r} is no place in a list of tasks: give back a page's `next`")
    return int(before)
