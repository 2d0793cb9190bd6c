"""A number that grows with every change, and those who wait for it to."""

from __future__ import annotations

import asyncio


class Generation:
    """Counts changes. Whoever remembers a number can wait until there is a later one, and misses none."""

    def __init__(self) -> None:
        self.number = 0
        """How many changes there were."""
        self._advanced = asyncio.Event()

    def advance(self) -> None:
        """Count one more change, and wake all who wait for it."""
        self.number += 1
        self._advanced.set()
        self._advanced = asyncio.Event()

    async def later_than(self, number: int) -> int:
        """Wait until `number` is no longer the current one; return the current one."""
        while self.number == number:
            await self._advanced.wait()
        return self.number
