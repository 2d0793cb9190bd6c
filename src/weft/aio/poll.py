"""Waiting for a condition of which nobody sends word."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(
    condition: Callable[[], Awaitable[bool]], *, first: float = 0.02, longest: float = 0.5
) -> None:
    """Ask `condition` until it holds: after `first` seconds, then ever less often, up to `longest` apart.

    There is no time limit: wrap it in `asyncio.timeout`.
    """
    delay = first
    while not await condition():
        await asyncio.sleep(delay)
        delay = min(delay * 1.5, longest)
