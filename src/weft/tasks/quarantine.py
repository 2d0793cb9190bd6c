"""Tasks that may be the death of their workers are run one at a time.

When a worker dies, all that it had in hand comes back together: the task that killed it, and its neighbours,
who did no harm. Run together again they would die together again, until none has an attempt left. So a task
whose worker fell silent, and not for the first time that an attempt came to nothing, is a suspect, and each
worker has one suspect in hand at most. The others wait for a moment that differs from one to the next.
"""

from __future__ import annotations

import random

from weft.model.task import Task, TaskState

SUSPECT_FAILURES = 2
"""Attempts that count and came to nothing, the last one in silence, that make a task a suspect. One does not:
when a machine is lost, what it had in hand is to go on elsewhere at once."""


class Quarantine:
    """The place of one worker for a suspect."""

    def __init__(self) -> None:
        self._suspect: str | None = None

    def admit(self, task: Task) -> bool:
        """Whether a task, as its record stands, may be run now. A suspect has the place until `leave`."""
        if not _is_suspect(task):
            return True
        if self._suspect is not None:
            return False
        self._suspect = task.id
        return True

    def leave(self, task_id: str) -> None:
        """The attempt at that task is over, or was not made. If it was no suspect, this does nothing."""
        if self._suspect == task_id:
            self._suspect = None


def pause(visibility_timeout: float) -> float:
    """Seconds until a suspect is offered again for which there was no place."""
    return visibility_timeout * random.uniform(0.1, 0.6)  # noqa: S311 -- to spread them, not to hide anything


def _is_suspect(task: Task) -> bool:
    return task.state is TaskState.RUNNING and task.failures >= SUSPECT_FAILURES
