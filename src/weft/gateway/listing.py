"""How a gateway asks for a queue's tasks: it has no right to search the store by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from weft.model.task import Task, TaskState
from weft.tasks.listing import TaskPage

MAX_LISTED = 500
"""Tasks of one page."""


@dataclass(frozen=True, slots=True)
class TaskQuery:
    """Which tasks are wanted."""

    queue: str
    state: TaskState | None = None
    """None: any."""
    limit: int = 100
    before: str | None = None
    """Where the page before ended: what its `next` says."""
    submitter: str = ""
    """Only those that it has submitted; with `/` at the end, all whose names begin so. Empty: of anybody."""

    def wants(self, task: Task) -> bool:
        """Whether it is submitted by whom it should be."""
        if not self.submitter or self.submitter.endswith("/"):
            return task.submitter.startswith(self.submitter)
        return task.submitter == self.submitter


ListTasks = Callable[[TaskQuery], Awaitable[TaskPage]]
"""Gives the tasks, newest first. Raises NotFound for a queue that is not declared, and Unavailable."""
