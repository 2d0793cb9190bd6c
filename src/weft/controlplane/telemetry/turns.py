"""Long work in an event loop, done bit by bit."""

from __future__ import annotations

import asyncio
import time
from typing import Final

LONGEST: Final = 0.01
"""Seconds for which work goes on before others get their turn."""


class Turn:
    """One piece of work's turns."""

    def __init__(self) -> None:
        self._until = time.perf_counter() + LONGEST

    async def pause(self) -> None:
        """Let others have their turn, if it is time."""
        if time.perf_counter() >= self._until:
            await asyncio.sleep(0)
            self._until = time.perf_counter() + LONGEST
