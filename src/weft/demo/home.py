"""A temporary directory for a mesh, which is gone afterwards even if this process is killed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from weft.aio.guard import Guard
from weft.model.local_state import ChildState

_WRITER = "nats"
"""The one process of a mesh that writes into its directory."""


class TemporaryHome:
    """The directory of a mesh that leaves nothing behind."""

    def __init__(self, directory: Path, guard: Guard) -> None:
        self.directory = directory
        self._guard = guard
        self._writer: int | None = None

    def child(self, state: ChildState) -> None:
        """A process of the mesh took a step: the directory is removed only once its writer has ended."""
        if state.name != _WRITER or state.pid == self._writer:
            return
        if self._writer is not None:
            self._guard.forget_group(self._writer)
        if state.pid is not None:
            self._guard.add_group(state.pid)
        self._writer = state.pid


@asynccontextmanager
async def temporary_home() -> AsyncIterator[TemporaryHome]:
    """A new directory for the block; at its end, or when this process dies, it is removed."""
    async with Guard() as guard:
        yield TemporaryHome(guard.temporary_directory("weft-demo-"), guard)
