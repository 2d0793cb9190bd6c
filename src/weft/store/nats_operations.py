"""What is done by nats-py itself, and waits for the server."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False, slots=True)
class Operation:
    """Something that waits for the server."""

    subjects: Collection[str]
    """What it publishes to, in lower case, as nats-py hands errors on."""
    limit: asyncio.Timeout
    denied: str = ""
    """The subject that is closed to this identity."""


class Operations:
    """Those under way on one connection, which fail as soon as it is known that nobody will answer."""

    def __init__(self) -> None:
        self._under_way: set[Operation] = set()

    @contextmanager
    def until_done(self, operation: Operation) -> Iterator[None]:
        """Within the context, `operation` is under way."""
        self._under_way.add(operation)
        try:
            yield
        finally:
            self._under_way.discard(operation)

    def now(self) -> frozenset[Operation]:
        """What is under way at this moment."""
        return frozenset(self._under_way)

    def deny(self, subject: str) -> None:
        """Let fail what publishes to `subject` (in lower case): the server drops what it does not permit."""
        now = asyncio.get_running_loop().time()
        for each in self._under_way:
            if subject in each.subjects:
                each.denied = subject
                each.limit.reschedule(now)

    def lose(self) -> None:
        """Let everything fail now rather than at its time limit: nobody will answer."""
        now = asyncio.get_running_loop().time()
        for each in self._under_way:
            each.limit.reschedule(now)
