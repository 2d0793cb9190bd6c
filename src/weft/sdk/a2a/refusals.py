"""Why an A2A task does not do what its caller wants."""

from __future__ import annotations

from weft.errors import Conflict


class TaskOver(Conflict):
    """The task has ended, and takes no more messages and subscribers."""


class NotWaiting(Conflict):
    """The task is being worked on, and takes no message until it asks for one."""


class NotCancelable(Conflict):
    """The task has ended."""
