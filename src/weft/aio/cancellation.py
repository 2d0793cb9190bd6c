"""Cancellations that arrive: asyncio.wait_for before Python 3.12 loses some, and so do libraries."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

_PATIENCE = 10.0
"""Seconds that a cancelled task has to clean up before it is cancelled again."""


class cancellation_kept:  # noqa: N801 -- used like a function, and a class since it is entered for every request
    """Within the context no cancellation of the current task gets lost, whatever the code in it does.

    If the task was cancelled meanwhile, asyncio.CancelledError is raised when the context is left, in place
    of a result or an error. A task that was cancelled before, and cleans up, goes on.
    """

    __slots__ = ("_before", "_task")

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("only a task can be cancelled")
        self._task = task
        self._before = task.cancelling()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        if self._task.cancelling() > self._before and not isinstance(error, asyncio.CancelledError):
            raise asyncio.CancelledError from error


async def end(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks and wait until all have ended; what comes of them is not looked at.

    One that goes on all the same for 10 s is cancelled again.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_PATIENCE)
        for task in left:
            logger.warning("task %r goes on though it was cancelled; cancelling it again", task.get_name())
