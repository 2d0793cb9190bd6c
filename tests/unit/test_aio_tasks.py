"""Background tasks with an owner."""

from __future__ import annotations

import asyncio
import logging

import pytest

from weft.aio.tasks import TaskOwner


async def _fail() -> None:
    raise LookupError("the cause")


async def _return() -> str:
    return "done"


async def test_a_failing_task_is_logged_with_its_owner_its_name_and_its_cause(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with TaskOwner("registry") as tasks:
        task = tasks.start(_fail(), name="follow instances")
        await asyncio.wait([task])
    assert "registry: follow instances" in caplog.text
    assert "LookupError: the cause" in caplog.text


async def test_a_task_that_returns_hands_out_its_result_and_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with TaskOwner("registry") as tasks:
        assert await tasks.start(_return(), name="one-off") == "done"
    assert caplog.records == []


async def test_the_return_of_an_endless_task_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with TaskOwner("registry") as tasks:
        await tasks.start(_return(), name="follow", endless=True)
        await asyncio.sleep(0)
    assert [(each.levelno, "registry: follow" in each.message) for each in caplog.records] == [
        (logging.ERROR, True)
    ]


async def test_leaving_the_context_ends_all_tasks_and_waits_for_their_cleanup() -> None:
    cleaned = asyncio.Event()
    started = asyncio.Event()

    async def tidy() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.set()

    async with TaskOwner("owner") as tasks:
        task = tasks.start(tidy(), name="tidy", endless=True)
        await started.wait()
    assert task.cancelled()
    assert cleaned.is_set()


async def test_one_failing_task_leaves_the_others_running() -> None:
    async with TaskOwner("owner") as tasks:
        steady = tasks.start(asyncio.Event().wait(), name="steady")
        await asyncio.wait([tasks.start(_fail(), name="failing")])
        assert not steady.done()


async def test_a_closed_owner_starts_nothing() -> None:
    tasks = TaskOwner("owner")
    await tasks.close()
    with pytest.raises(RuntimeError, match="owner is closed"):
        tasks.start(_return(), name="late")


async def test_a_task_may_close_its_own_owner() -> None:
    tasks = TaskOwner("owner")
    other = tasks.start(asyncio.Event().wait(), name="other")
    async with asyncio.timeout(1):
        await tasks.start(tasks.close(), name="closing")
    assert other.cancelled()
