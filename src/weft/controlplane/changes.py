"""Waiting for whichever of several things changes first."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Protocol

LONGEST_REST = 0.2
"""Seconds, at most, for which changes are gathered while others follow."""


class Followed(Protocol):
    """What can be waited for to change."""

    @property
    def generation(self) -> int:
        """Grows with every change."""
        ...

    async def changed_since(self, generation: int) -> int:
        """Wait until `generation` is no longer the current one; return the current one."""
        ...


async def any_of(*changes: Awaitable[int]) -> None:
    """Wait until one of `changes` has come, and give up waiting for the others."""
    waiting = [asyncio.ensure_future(each) for each in changes]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for each in waiting:
            each.cancel()
