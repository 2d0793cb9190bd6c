"""Doing something for each of many things, a number of them at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


async def spread(act: Callable[[T], Awaitable[object]], things: Iterable[T], at_once: int) -> None:
    """Await `act` for each of `things`, `at_once` of them at a time. Raises the first error of any."""
    left = iter(things)

    async def some() -> None:
        for each in left:
            await act(each)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(at_once):
                group.create_task(some())
    except ExceptionGroup as group_of_errors:
        raise group_of_errors.exceptions[0] from None
