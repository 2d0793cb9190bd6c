"""Streams that are closed while who read them is being cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import anyio
import pytest

from weft.aio.closing import close_behind

LIMIT = 30.0


class Source:
    """An async generator that takes a while to clean up."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()
        self.clean = asyncio.Event()

    async def items(self) -> AsyncGenerator[int]:
        try:
            yield 1
            self.waiting.set()
            await asyncio.Event().wait()
        finally:
            for _ in range(10):
                await asyncio.sleep(0.001)
            self.clean.set()


@pytest.mark.parametrize("read_on", [False, True])
async def test_a_stream_cleans_up_though_its_reader_is_cancelled_again_and_again(*, read_on: bool) -> None:
    source = Source()
    items = source.items()
    assert await anext(items) == 1

    async def reader() -> None:
        upcoming = asyncio.ensure_future(anext(items)) if read_on else None
        try:
            await asyncio.Event().wait()
        finally:
            await close_behind(items, upcoming)

    async with asyncio.timeout(LIMIT):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reader)
            if read_on:
                await source.waiting.wait()
            else:
                await asyncio.sleep(0)
            tasks.cancel_scope.cancel()  # as servers do when a client has gone
        await source.clean.wait()
        with pytest.raises(StopAsyncIteration):
            await anext(items)
