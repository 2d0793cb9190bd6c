"""Telling what takes long that the process is about to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


class Draining:
    """Whether the gateway is about to stop: streams end and waits return early then."""

    def __init__(self) -> None:
        self._begun = asyncio.Event()

    @property
    def begun(self) -> bool:
        """Whether it is."""
        return self._begun.is_set()

    def begin(self) -> None:
        """It is."""
        self._begun.set()

    async def wait(self) -> None:
        """Return once it is."""
        await self._begun.wait()

    async def unless_begun(self, work: Awaitable[T]) -> T | None:
        """What `work` returns; None, with `work` cancelled, if draining begins before it is done."""
        task = asyncio.ensure_future(work)
        begun = asyncio.ensure_future(self._begun.wait())
        try:
            await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
            return task.result() if task.done() else None
        finally:
            task.cancel()
            begun.cancel()
            await asyncio.gather(task, begun, return_exceptions=True)
