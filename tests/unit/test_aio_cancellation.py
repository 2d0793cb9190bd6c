"""Cancellations arrive though what they meet keeps them to itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest

from weft.aio import cancellation
from weft.aio.cancellation import cancellation_kept, end

PATIENCE = 30.0


async def swallow(error: Exception | None = None) -> None:
    """Wait, and keep the cancellation to itself."""
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        if error is not None:
            raise error from None


async def within_no_time(work: Awaitable[object]) -> None:
    async with asyncio.timeout(0):
        await work


@pytest.mark.parametrize("error", [None, ConnectionError("refused at that very moment")])
async def test_a_task_that_is_cancelled_ends_whatever_came_of_what_it_waited_for(
    error: Exception | None,
) -> None:
    async def kept() -> None:
        with cancellation_kept():
            await swallow(error)

    task = asyncio.create_task(kept())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_who_was_cancelled_before_can_clean_up() -> None:
    cleaned = asyncio.Event()

    async def cleaning() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            with cancellation_kept():
                await asyncio.sleep(0)
                cleaned.set()

    task = asyncio.create_task(cleaning())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert cleaned.is_set()


async def test_the_end_of_a_time_limit_is_no_cancellation_of_the_task() -> None:
    with cancellation_kept(), pytest.raises(TimeoutError):
        await within_no_time(asyncio.Event().wait())

    async def kept() -> None:
        with cancellation_kept():
            await swallow()

    with pytest.raises(TimeoutError):
        await within_no_time(kept())


async def test_a_task_that_goes_on_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cancellation, "_PATIENCE", 0.01)

    async def stubborn() -> None:
        for _ in range(3):
            await swallow()

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(PATIENCE):
        await end([task])
    assert task.done()
