"""Doing the same to many keys, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from weft.errors import MeshError

T = TypeVar("T")


async def each_of(numbers: Iterable[int], act: Callable[[int], Awaitable[T]], *, at_once: int = 4) -> list[T]:
    """What `act` gives for each of `numbers`, `at_once` at a time.

    The first MeshError ends all of it, and is raised.
    """
    room = asyncio.Semaphore(at_once)

    async def in_turn(number: int) -> T:
        async with room:
            return await act(number)

    try:
        async with asyncio.TaskGroup() as tasks:
            started = [tasks.create_task(in_turn(number)) for number in numbers]
    except* MeshError as group:
        raise _first(group) from None
    return [each.result() for each in started]


def _first(group: BaseExceptionGroup[MeshError]) -> MeshError:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first
