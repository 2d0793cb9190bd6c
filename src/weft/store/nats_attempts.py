"""Asking one of several servers again: who was asked may be gone, and nobody says so."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")

_ATTEMPTS = 4
"""How often at least something is asked within its time limit if there is no answer."""
_LONGEST_ATTEMPT = 3.0
"""Seconds."""


async def attempted(ask: Callable[[float], Awaitable[T]], limit: float, *, again: bool) -> T:
    """What `ask` gives, which gets the seconds that it may take; asked once, or `again` until `limit`.

    Raises what it raises, TimeoutError from the last attempt.
    """
    if not again:
        return await ask(limit)
    clock = asyncio.get_running_loop().time
    end, share = clock() + limit, min(limit / _ATTEMPTS, _LONGEST_ATTEMPT)
    while True:
        try:
            return await ask(min(share, max(end - clock(), 0.0)))
        except TimeoutError:
            if clock() >= end:
                raise
