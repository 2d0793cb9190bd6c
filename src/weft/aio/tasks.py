"""Background tasks with a name and an owner: none is forgotten, and none fails unheard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from weft.aio.cancellation import end

T = TypeVar("T")

logger = logging.getLogger(__name__)


class TaskOwner:
    """Owns background tasks: a failing one is logged at once, and all end with the owner.

    Use it as an async context manager, or call `close` yourself. Unlike `asyncio.TaskGroup` it does not bring
    the others down when one fails: who needs that awaits the task that `start` returns.
    """

    def __init__(self, name: str) -> None:
        """`name` says in logs, and before each task's own name, whose tasks these are."""
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def start(self, work: Coroutine[Any, Any, T], *, name: str, endless: bool = False) -> asyncio.Task[T]:
        """Run `work` in the background; needs a running event loop.

        An exception is logged with its traceback; so is the return of an `endless` task. Raises RuntimeError
        once the owner is closed.
        """
        if self._closed:
            work.close()
            raise RuntimeError(f"{self._name} is closed and starts no more tasks")
        task = asyncio.get_running_loop().create_task(work, name=f"{self._name}: {name}")
        self._tasks.add(task)
        task.add_done_callback(lambda ended: self._note_end(ended, endless=endless))
        return task

    async def close(self) -> None:
        """Cancel what still runs and wait for its end, as `end` does. A second time it does nothing.

        A task that calls this itself is left to run to its end.
        """
        self._closed = True
        tasks = self._tasks - {asyncio.current_task()}
        await end(tasks)

    def _note_end(self, task: asyncio.Task[Any], *, endless: bool) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            if not self._closed:
                logger.debug("task %r was cancelled", task.get_name())
            return
        error = task.exception()
        if error is not None:
            logger.error("task %r failed", task.get_name(), exc_info=error)
        elif endless and not self._closed:
            logger.error("task %r ended, though it was to run for as long as its owner", task.get_name())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
