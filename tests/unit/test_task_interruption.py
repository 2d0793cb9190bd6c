"""Stopping a block from outside, and nothing but it."""

from __future__ import annotations

import asyncio

import pytest

from weft.tasks.interruption import Interruptible, Reason


async def test_an_interrupted_block_is_left_and_its_task_goes_on() -> None:
    scope = Interruptible()
    asyncio.get_running_loop().call_soon(scope.interrupt, Reason.CANCELLED)
    with scope:
        await asyncio.sleep(3600)
    await asyncio.sleep(0)
    assert scope.reason is Reason.CANCELLED


async def test_the_first_reason_counts() -> None:
    scope = Interruptible()
    with scope:
        scope.interrupt_later(0, Reason.TIME_LIMIT)
        asyncio.get_running_loop().call_later(0.01, scope.interrupt, Reason.CANCELLED)
        try:
            await asyncio.sleep(3600)
        finally:
            await asyncio.sleep(0.02)
    assert scope.reason is Reason.TIME_LIMIT


async def test_a_block_that_was_left_cannot_be_interrupted() -> None:
    scope = Interruptible()
    with scope:
        scope.interrupt_later(0.01, Reason.TIME_LIMIT)
    scope.interrupt(Reason.LOST)
    await asyncio.sleep(0.02)
    assert scope.reason is None


async def test_an_error_while_it_ends_is_raised() -> None:
    scope = Interruptible()

    async def work() -> None:
        with scope:
            try:
                await asyncio.sleep(3600)
            finally:
                raise RuntimeError("on the way out")

    asyncio.get_running_loop().call_soon(scope.interrupt, Reason.DEADLINE)
    with pytest.raises(RuntimeError, match="on the way out"):
        await work()
    await asyncio.sleep(0)


async def test_who_cancels_the_task_meanwhile_is_heard() -> None:
    scope = Interruptible()
    inside = asyncio.Event()
    behind = False

    async def work() -> None:
        nonlocal behind
        with scope:
            inside.set()
            await asyncio.sleep(3600)
        behind = True

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    scope.interrupt(Reason.CANCELLED)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not behind
