"""Servers that many tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

T = TypeVar("T")


@asynccontextmanager
async def hosted(server: AbstractAsyncContextManager[T]) -> AsyncIterator[T]:
    """What `server` yields, for a fixture: those are set up and torn down in different tasks.

    What servers need may have to be left where it was entered, so this is done in a task of its own.
    """
    started: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    over = asyncio.Event()

    async def host() -> None:
        async with server as running:
            started.set_result(running)
            await over.wait()

    hosting = asyncio.create_task(host())
    either: list[asyncio.Future[Any]] = [hosting, started]
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if hosting.done():
        await hosting
    yield started.result()
    over.set()
    await hosting
