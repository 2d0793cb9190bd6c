"""A submitted task, in the hands of its submitter."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any

from weft.errors import AgentFailed, Interrupted, TimedOut
from weft.model.task import Task, TaskState
from weft.tasks.client import TaskClient
from weft.tasks.news import TaskNews

FOREVER = 30 * 86400.0
"""Seconds that a wait without a limit takes at most."""


class TaskHandle:
    """A task by its id: what became of it, and how to stop it. Any program that may consume or submit to its
    queue can have one, by `mesh.task(id)`."""

    def __init__(self, task_id: str, client: Callable[[], Awaitable[TaskClient]]) -> None:
        self.id = task_id
        self._client = client

    async def status(self) -> Task:
        """How it stands. Raises NotFound once it is no longer kept, and Unavailable."""
        return await (await self._client()).get(self.id)

    async def result(self, timeout: float | None = None) -> Any:
        """Its result, as JSON types, once it has succeeded.

        Raises AgentFailed if it failed, Interrupted if it was cancelled, TimedOut if it has not ended after
        `timeout` seconds (it goes on), NotFound and Unavailable.
        """
        task = await (await self._client()).wait(self.id, FOREVER if timeout is None else timeout)
        match task.state:
            case TaskState.SUCCEEDED:
                return task.result
            case TaskState.CANCELLED:
                raise Interrupted(f"task {self.id!r} was cancelled")
            case TaskState.FAILED:
                error = task.error
                reason = f"{error.code}: {error.detail}" if error is not None else "nobody said why"
                raise AgentFailed(f"task {self.id!r} failed after {task.attempts} attempts ({reason})")
        raise TimedOut(f"task {self.id!r} is {task.state} after {timeout:g} seconds; it goes on")

    async def cancel(self) -> Task:
        """Stop it, wherever it is; one that has ended stays as it is. Raises NotFound and Unavailable."""
        return await (await self._client()).cancel(self.id)

    async def updates(self, after: str = "") -> AsyncGenerator[TaskNews, None]:
        """Its changes of state, progress and partial results, in order, until its end.

        `after` is the cursor of the last that is known. Raises NotFound and Unavailable.
        """
        async with (await self._client()).follow(self.id, after) as news:
            async for each in news:
                yield each

    def __repr__(self) -> str:
        return f"TaskHandle({self.id!r})"
