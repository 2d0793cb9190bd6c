"""Stopping what a task of asyncio does at the moment, without ending that task."""

from __future__ import annotations

import asyncio
from enum import Enum, auto
from types import TracebackType
from typing import Self


class Reason(Enum):
    """Why a handler is stopped."""

    CANCELLED = auto()
    """The task was cancelled: nobody wants its result."""
    LOST = auto()
    """Another worker has the task, or may have it."""
    TIME_LIMIT = auto()
    """The attempt takes longer than the queue lets it."""
    DEADLINE = auto()
    """The task is too late."""


class Interruptible:
    """A block that others may stop: `with` it, `interrupt` it from elsewhere, and ask for the `reason` after.

    The block is left early then, without an exception, unless it raises one of its own while it ends. As
    with `asyncio.timeout`, whoever cancels the surrounding task at the same time is heard.
    """

    def __init__(self) -> None:
        self.reason: Reason | None = None
        """Why the block was stopped; None if it was not."""
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0
        self._timer: asyncio.TimerHandle | None = None

    def interrupt(self, reason: Reason) -> None:
        """Stop the block, if it is still in it and was not stopped before."""
        if self._task is not None and self.reason is None:
            self.reason = reason
            self._task.cancel()

    def interrupt_later(self, seconds: float, reason: Reason) -> None:
        """Stop the block in so many seconds. To be called within it, once."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self.interrupt, reason)

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None  # noqa: S101 -- there is one wherever something awaits
        self._cancelling = self._task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        task, self._task = self._task, None
        if self._timer is not None:
            self._timer.cancel()
        if self.reason is None or task is None:
            return False
        # One cancellation is this block's own. If there are more, the others' goes on.
        return task.uncancel() <= self._cancelling and kind is asyncio.CancelledError
